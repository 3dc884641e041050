"""Initial values of single tensors in the field's layout [..., fan_in, fan_out], drawn by their fans."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.init import calculate_gain

Mode = Literal["fan_in", "fan_out"]


def calc_fan_in_and_fan_out(tensor: Float[Tensor, "..."]) -> tuple[int, int]:
    """How many inputs and outputs a weight has, in this library's layout.

    A vector is a bias: its inputs are one. A matrix is [in, out]. Three axes are [head, in, out], with W_Q's meaning:
    every head reads the same input, so there are head · out outputs.

    Raises:
        ValueError: a number, or more than three axes.

    Example:
        >>> calc_fan_in_and_fan_out(torch.ones(12, 768, 64))
        (768, 768)
    """
    shape = tensor.shape
    if not 1 <= len(shape) <= 3:
        raise ValueError(f"A weight has one to three axes; this has shape {tuple(shape)}.")
    if len(shape) == 1:
        return 1, shape[0]
    return shape[-2], shape[-1] * (shape[0] if len(shape) == 3 else 1)


def init_xavier_uniform_(param: Tensor, gain: float = 1.0) -> Tensor:
    """The tensor, filled in place from U(-a, a), a = gain · √(6 / (in + out)) (Glorot and Bengio 2010).

    Example:
        >>> float(init_xavier_uniform_(torch.empty(3, 3)).abs().max()) <= 1.0
        True
    """
    return _uniform(param, gain * math.sqrt(2 / sum(calc_fan_in_and_fan_out(param))))


def init_xavier_normal_(param: Tensor, gain: float = 1.0) -> Tensor:
    """The tensor, filled in place from N(0, s²), s = gain · √(2 / (in + out)) (Glorot and Bengio 2010).

    Example:
        >>> init_xavier_normal_(torch.empty(3, 3)).shape
        torch.Size([3, 3])
    """
    return _normal(param, gain * math.sqrt(2 / sum(calc_fan_in_and_fan_out(param))))


def init_kaiming_uniform_(
    param: Tensor, a: float = 0.0, nonlinearity: Any = "relu", gain: float = 1.0, mode: Mode = "fan_in"
) -> Tensor:
    """The tensor, filled in place from U(-b, b), b = gain · g · √(3 / fan) (He et al. 2015).

    Args:
        param: the tensor.
        a: the negative slope of a leaky ReLU; for no other nonlinearity.
        nonlinearity: g is torch's calculate_gain of this.
        gain: a factor beside g.
        mode: which fan.

    Raises:
        ValueError: torch knows no such nonlinearity, or there is no such mode.

    Example:
        >>> init_kaiming_uniform_(torch.empty(3, 3), nonlinearity="linear").abs().max().item() <= 1.0
        True
    """
    return _uniform(param, _kaiming(param, a, nonlinearity, gain, mode))


def init_kaiming_normal_(
    param: Tensor, a: float = 0.0, nonlinearity: Any = "relu", gain: float = 1.0, mode: Mode = "fan_in"
) -> Tensor:
    """The tensor, filled in place from N(0, s²), s = gain · g / √fan. Arguments as for `init_kaiming_uniform_`.

    Example:
        >>> init_kaiming_normal_(torch.empty(3, 3)).shape
        torch.Size([3, 3])
    """
    return _normal(param, _kaiming(param, a, nonlinearity, gain, mode))


def _kaiming(param: Tensor, a: float, nonlinearity: Any, gain: float, mode: Mode) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode is {mode!r}; known: 'fan_in' and 'fan_out'.")
    if a and nonlinearity != "leaky_relu":
        raise ValueError(f"a={a} is the slope of a leaky ReLU, and has no effect with nonlinearity={nonlinearity!r}.")
    fan = calc_fan_in_and_fan_out(param)[0 if mode == "fan_in" else 1]
    return gain * calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _uniform(param: Tensor, deviation: float) -> Tensor:
    with torch.no_grad():
        return param.uniform_(-deviation * math.sqrt(3), deviation * math.sqrt(3))


def _normal(param: Tensor, deviation: float) -> Tensor:
    with torch.no_grad():
        return param.normal_(0.0, deviation)
