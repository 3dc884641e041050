"""Other numbers in a parameter for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def temporarily_swap_parameter(parameter: Any, new_value: Any) -> Iterator[nn.Parameter]:
    """The parameter, which holds other numbers while the `with` block lasts; also an exception ends that.

    The parameter itself stays what it is, so every name, optimizer and hook that knows it sees the new numbers; its
    gradient is left alone. Costs one copy of it. A whole model's edits are `model.edit`.

    Args:
        parameter: the nn.Parameter.
        new_value: a tensor of its shape and dtype, on any device.

    Raises:
        TypeError: no nn.Parameter, or no tensor.
        ValueError: another shape or dtype.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before = layer.weight.detach().clone()
        >>> with temporarily_swap_parameter(layer.weight, torch.zeros(2, 2)):
        ...     layer.weight.abs().sum().item()
        0.0
        >>> torch.equal(layer.weight, before)
        True
    """
    if not isinstance(parameter, nn.Parameter):
        raise TypeError(f"parameter must be a torch.nn.Parameter; got {type(parameter).__name__}.")
    if not isinstance(new_value, Tensor):
        raise TypeError(f"new_value must be a torch.Tensor; got {type(new_value).__name__}.")
    for what in ("shape", "dtype"):
        ours, theirs = getattr(parameter, what), getattr(new_value, what)
        if ours != theirs:
            said = (tuple(theirs), tuple(ours)) if what == "shape" else (theirs, ours)
            raise ValueError(f"new_value has {what} {said[0]}; it must be {said[1]}, as the parameter's.")
    before = parameter.detach().clone()
    try:
        with torch.no_grad():
            parameter.copy_(new_value)
        yield parameter
    finally:
        with torch.no_grad():
            parameter.copy_(before)
