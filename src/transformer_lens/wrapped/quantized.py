"""Whether a stored weight can be read as a plain matrix, and how what cannot be was quantised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from transformer_lens.config.quantization import quantization_method
from transformer_lens.wrapped.stored import UnreadableWeightError

_READABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def unreadable_weight_reason(weight: Any) -> str | None:
    """Why a weight is no plain matrix, as the end of a sentence ("it …"); None if it is one.

    Plain are float16, bfloat16, float32 and float64 that are loaded. A bridge's own weights (`bridge.W_Q`) are
    dequantised where that is defined.

    Example:
        >>> unreadable_weight_reason(torch.zeros(2, 1, dtype=torch.uint8))
        'it is kept as torch.uint8, which is packed integers'
    """
    if not isinstance(weight, Tensor):
        return f"it is a {type(weight).__name__}, not a tensor"
    if weight.is_meta:
        return "it is on the meta device, so it was never loaded or is kept elsewhere"
    if weight.dtype in _READABLE:
        return None
    kind = "narrow floats that need the scales stored beside them" if weight.is_floating_point() else "packed integers"
    return f"it is kept as {weight.dtype}, which is {kind}"


def describe_quantization(owner: Any) -> str:
    """How the weights of a module are quantised: as its configuration declares, else the class of its weight.

    Args:
        owner: anything with a transformers `config`, or with a `weight`; None is of unknown quantisation.

    Example:
        >>> describe_quantization(nn.Linear(1, 1))
        'an unknown quantization'
    """
    declared = quantization_method(getattr(owner, "config", None))
    if declared is not None:
        return declared
    weight = getattr(owner, "weight", None)
    plain = weight is None or type(weight) in (Tensor, nn.Parameter)
    return "an unknown quantization" if plain else type(weight).__name__


def require_readable_weight(weight: Any, *, operation: str, owner: Any = None, remedy: str | None = None) -> Tensor:
    """The weight itself, if it is a plain matrix.

    Args:
        weight: the weight.
        operation: what it is needed for, as a verb: "fold LayerNorm".
        owner: whose it is, to say how it is quantised.
        remedy: what to do about it, for the error; None: to load without quantisation.

    Raises:
        UnreadableWeightError: it cannot be read as it is.

    Example:
        >>> weight = torch.ones(2, 2)
        >>> require_readable_weight(weight, operation="fold LayerNorm") is weight
        True
    """
    reason = unreadable_weight_reason(weight)
    if reason is None:
        readable: Tensor = weight
        return readable
    advice = remedy or "Load the model without a quantization_config, or dequantise it; passes and hooks work as it is."
    raise UnreadableWeightError(
        f"Cannot {operation} because {reason} (quantization: {describe_quantization(owner)}). {advice}"
    )
