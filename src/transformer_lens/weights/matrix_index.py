"""How an index into a stack of factored matrices falls apart into leading, row and column parts."""

import operator
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from transformer_lens.errors import TransformerLensError


class WeightsError(TransformerLensError, ValueError, AssertionError, RuntimeError):
    """Weights that do not fit together, or a part of them that does not exist.

    Catch it as ValueError. It is an AssertionError and a RuntimeError too because earlier releases raised those.
    """


@runtime_checkable
class TensorLike(Protocol):
    """What a factored matrix can be made of: axes that can be counted, added, dropped and broadcast, and a product.

    >>> isinstance(torch.ones(2), TensorLike), isinstance([1.0], TensorLike)
    (True, False)
    """

    @property
    def ndim(self) -> int:
        """How many axes it has."""

    @property
    def shape(self) -> Any:
        """Their lengths."""

    def size(self, dim: int) -> int:
        """The length of one."""

    def unsqueeze(self, dim: int) -> Any:
        """With a new axis of length one."""

    def squeeze(self, dim: int) -> Any:
        """Without an axis of length one."""

    def broadcast_to(self, shape: Any) -> Any:
        """Repeated along axes of length one, without a copy."""

    def __matmul__(self, other: Any) -> Any: ...


def split_index(index: Any, shape: torch.Size) -> tuple[tuple[Any, ...], Any, Any]:
    """The leading, row and column parts of an index into a matrix of this shape."""
    items = [_normal_item(item) for item in (index if isinstance(index, tuple) else (index,))]
    if sum(item is Ellipsis for item in items) > 1:
        raise WeightsError("an index can hold only one ellipsis (...)")
    missing = len(shape) - sum(_axes_used(item) for item in items)
    if missing < 0:
        raise WeightsError(f"too many indices for a FactoredMatrix of shape {tuple(shape)}: {index}")
    where = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    items[where : where + 1] = [slice(None)] * missing
    leading: list[Any] = []
    used = 0
    while used < len(shape) - 2 or (items and items[0] is None):
        item = items.pop(0)
        used += _axes_used(item)
        leading.append(item)
    if used > len(shape) - 2 or len(items) != 2 or any(item is None for item in items):
        raise WeightsError(
            f"index {index} does not keep rows and columns apart in a FactoredMatrix of shape {tuple(shape)}; "
            "new axes and boolean masks must stand among the leading axes"
        )
    return tuple(leading), _kept(items[0], shape[-2]), _kept(items[1], shape[-1])


def _normal_item(item: Any) -> Any:
    """The item as an int, slice, None, Ellipsis or tensor."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, bool):
        raise WeightsError("True and False are no index; use a boolean tensor to mask an axis")
    if isinstance(item, Tensor) and item.ndim > 0:
        return item
    if isinstance(item, np.ndarray) and item.ndim > 0:
        return torch.from_numpy(item)
    if isinstance(item, Sequence) and not isinstance(item, str):
        return torch.tensor(item, dtype=None if item else torch.long)
    try:
        return operator.index(item)
    except TypeError as error:
        raise TypeError(f"no index for a FactoredMatrix: {item!r}") from error


def _axes_used(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, Tensor) and item.dtype == torch.bool else 1


def _kept(item: Any, size: int) -> Any:
    """The item in a form that keeps its axis; a tensor is flattened to one axis."""
    if isinstance(item, int):
        if not -size <= item < size:
            raise IndexError(f"index {item} is out of range for a matrix axis of size {size}")
        return slice(item % size, item % size + 1)
    if isinstance(item, Tensor) and item.ndim != 1:
        raise WeightsError(f"rows and columns take a one-axis selection, not one of shape {tuple(item.shape)}")
    return item
