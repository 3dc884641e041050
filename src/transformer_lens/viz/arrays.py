"""Torch tensors and numpy arrays become checked numpy arrays here, and compact JSON on the way out."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | dict[str, Json] | None"

FEW_VALUES = 20_000
"""A picture with more values than this keeps 4 significant digits of each; a smaller one keeps 6."""


def as_array(values: object, name: str, axes: str) -> Float[np.ndarray, "..."]:
    """The tensor or array as float64 on the CPU, its number of axes checked.

    Args:
        values: a torch tensor (any device, any real dtype, gradient or not) or a numpy array.
        name: what an error calls it.
        axes: the names of its axes, separated by spaces, such as ``"layer head"``.

    Raises:
        TypeError: it is neither a tensor nor an array, or it is complex.
        ValueError: it has another number of axes, or no values.

    >>> as_array(torch.ones(2, 3, dtype=torch.bfloat16), "values", "layer head").shape
    (2, 3)
    """
    array = _on_cpu(values, name, axes)
    if np.iscomplexobj(array):
        raise TypeError(f"{name} is complex ({array.dtype}); this picture shows real numbers: pass its .real or .abs()")
    return array.astype(np.float64)


def as_complex_array(values: object, name: str, axes: str) -> Shaped[np.ndarray, "..."]:
    """The tensor or array as complex128 on the CPU, its number of axes checked (see `as_array`)."""
    return _on_cpu(values, name, axes).astype(np.complex128)


def _on_cpu(values: object, name: str, axes: str) -> Shaped[np.ndarray, "..."]:
    if isinstance(values, Tensor):
        tensor = values.detach().cpu()
        # NOTE: numpy has no bfloat16, so half precisions pass through float32 (exact for both of them).
        narrow = tensor.dtype.is_floating_point and tensor.dtype != torch.float64
        array = (tensor.float() if narrow else tensor.resolve_conj().resolve_neg()).numpy()
    elif isinstance(values, np.ndarray):
        array = values
    else:
        raise TypeError(f"{name} must be a torch tensor or a numpy array, not {type(values).__name__}")
    expected = axes.split()
    if array.ndim != len(expected):
        raise ValueError(
            f"{name} has shape {array.shape}: {array.ndim} axes; this picture needs {len(expected)}: {axes}"
        )
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: there is nothing to draw")
    return array


def checked_labels(labels: Sequence[str], name: str, length: int, of: str) -> list[str]:
    """The labels as a list of strings, exactly one for each entry of an axis.

    Raises:
        TypeError: ``labels`` is one string, or holds something that is not a string.
        ValueError: there are more or fewer labels than entries; the message has both numbers.

    >>> checked_labels(["a", "b"], "row_labels", 2, "rows of values")
    ['a', 'b']
    """
    if isinstance(labels, str):
        raise TypeError(f"{name} is one string ({labels!r}); it must be a sequence of strings, one for each entry")
    listed = list(labels)
    for label in listed:
        if not isinstance(label, str):
            raise TypeError(f"{name} holds {label!r} ({type(label).__name__}); every label must be a string")
    if len(listed) != length:
        raise ValueError(f"{name} has {len(listed)} entries, but there are {length} {of}")
    return listed


def as_json_numbers(array: Float[np.ndarray, "..."]) -> list[Json]:
    """The values in reading order, rounded; nan is ``None`` and the infinities are strings, as JSON has neither.

    >>> as_json_numbers(np.array([[1.0, 0.12345678], [float("nan"), float("-inf")]]))
    [1, 0.123457, None, '-inf']
    """
    digits = 6 if array.size <= FEW_VALUES else 4
    return [_json_number(value, digits) for value in array.ravel().tolist()]


def annotations(array: Float[np.ndarray, "..."]) -> list[str]:
    """The values in reading order as short texts with the same decimals, to be written in cells; empty for nan.

    >>> annotations(np.array([0.5, -12.34, float("nan")]))
    ['0.5', '-12.3', '']
    """
    finite = np.abs(array[np.isfinite(array)])
    magnitude = math.floor(math.log10(finite.max())) if finite.size and finite.max() > 0 else 0
    decimals = max(0, 2 - magnitude) if magnitude >= 0 else 1 - magnitude
    form = f".{decimals}f" if -4 <= magnitude < 6 else ".1e"
    return ["" if math.isnan(value) else f"{value:{form}}" for value in array.ravel().tolist()]


def _json_number(value: float, digits: int) -> Json:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return str(value)
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
