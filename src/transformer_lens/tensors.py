"""Small questions about tensors: their corner, their shape, which rows agree; and position ids from a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor


def to_numpy(tensor: Tensor | NDArray[Any] | list[Any] | tuple[Any, ...] | float) -> NDArray[Any]:
    """The values as a numpy array on the CPU, without their gradients; bfloat16 becomes float32, which holds it.

    Raises:
        TypeError: it is neither a tensor, an array, a list or tuple, nor a number.

    Example:
        >>> to_numpy(torch.ones(2, requires_grad=True))
        array([1., 1.], dtype=float32)
    """
    if isinstance(tensor, Tensor):
        values = tensor.detach().cpu()
        return np.asarray((values.float() if values.dtype == torch.bfloat16 else values).numpy())
    if isinstance(tensor, np.ndarray | np.generic | list | tuple | bool | int | float):
        return np.asarray(tensor)
    raise TypeError(f"to_numpy takes a tensor, an array, a list or a number; got {type(tensor).__name__}.")


def remove_batch_dim(tensor: Shaped[Tensor, "batch *rest"]) -> Shaped[Tensor, "*batch_and_rest"]:
    """The tensor without its first axis where that has length one; else the tensor as it is.

    Example:
        >>> remove_batch_dim(torch.ones(1, 3)).shape, remove_batch_dim(torch.ones(2, 3)).shape
        (torch.Size([3]), torch.Size([2, 3]))
    """
    return tensor.squeeze(0)


def transpose(tensor: Shaped[Tensor, "*leading a b"]) -> Shaped[Tensor, "*leading b a"]:
    """The tensor with its last two axes swapped.

    Example:
        >>> transpose(torch.ones(5, 2, 3)).shape
        torch.Size([5, 3, 2])
    """
    return tensor.transpose(-1, -2)


def is_square(x: Shaped[Tensor, "..."]) -> bool:
    """Whether it is a matrix with as many rows as columns.

    Example:
        >>> is_square(torch.ones(3, 3)), is_square(torch.ones(2, 3)), is_square(torch.ones(3))
        (True, False, False)
    """
    return x.ndim == 2 and x.shape[0] == x.shape[1]


def is_lower_triangular(x: Shaped[Tensor, "..."]) -> bool:
    """Whether it is a square matrix with nothing above its diagonal.

    Example:
        >>> is_lower_triangular(torch.ones(3, 3).tril()), is_lower_triangular(torch.ones(3, 3))
        (True, False)
    """
    return is_square(x) and bool((x.triu(1) == 0).all())


def check_structure(
    t1: Shaped[Tensor, "row column"], t2: Shaped[Tensor, "row column"], *, verbose: bool = False
) -> None:
    """Prints whether two square matrices rank their rows, and their columns, alike.

    Row i and row i+1 of a matrix are in order if each entry of the first is at least that of the second. A pair
    mismatches if one matrix has it in order and the other has not.

    Args:
        t1, t2: matrices of one shape, at least two by two.
        verbose: print which pairs are in order in each.

    Raises:
        ValueError: they are not two matrices of one shape.

    Example:
        >>> check_structure(torch.eye(2), torch.eye(2))
        PASSED
        >>> check_structure(torch.tensor([[2.0, 2], [1, 1]]), torch.tensor([[1.0, 1], [2, 2]]))
        row mismatch: 0-1
    """
    if t1.ndim != 2 or t1.shape != t2.shape:
        raise ValueError(f"Two matrices of one shape are compared; got {tuple(t1.shape)} and {tuple(t2.shape)}.")
    passed = True
    for axis, first, second in (("row", t1, t2), ("column", t1.T, t2.T)):
        orders = [(t[:-1] >= t[1:]).all(1) for t in (first, second)]
        if verbose:
            print(f"{axis} orders: {orders[0].tolist()} and {orders[1].tolist()}")  # noqa: T201 - it is what it does
        differing = (orders[0] != orders[1]).nonzero().flatten().tolist()
        if differing:
            passed = False
            print(f"{axis} mismatch: {', '.join(f'{i}-{i + 1}' for i in differing)}")  # noqa: T201
    if passed:
        print("PASSED")  # noqa: T201


def get_corner(tensor: Any, n: int = 3) -> Any:
    """The first n entries along every axis, of a tensor or of anything with a get_corner of its own.

    Example:
        >>> get_corner(torch.arange(9).reshape(3, 3), 2)
        tensor([[0, 1],
                [3, 4]])
    """
    if isinstance(tensor, Tensor):
        return tensor[(slice(n),) * tensor.ndim]
    return tensor.get_corner(n)


def get_offset_position_ids(
    past_kv_pos_offset: int, attention_mask: Int[Tensor, "batch offset_pos"]
) -> Int[Tensor, "batch pos"]:
    """The position of each new token among the tokens of its row that are not padding; 0 for padding.

    Args:
        past_kv_pos_offset: how many tokens are in the key-value cache; they come first in the mask.
        attention_mask: 1 for tokens, 0 for padding, over the cached tokens and the new ones.

    Example:
        >>> get_offset_position_ids(1, torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]))
        tensor([[0, 0, 1],
                [1, 2, 3]])
    """
    return (attention_mask.cumsum(1) - 1).clamp(min=0)[:, past_kv_pos_offset:]


def get_cumsum_along_dim(tensor: Shaped[Tensor, "..."], dim: int, reverse: bool = False) -> Shaped[Tensor, "..."]:
    """The running sum along an axis, from its end with `reverse`.

    Example:
        >>> get_cumsum_along_dim(torch.tensor([1, 2, 3]), 0, reverse=True)
        tensor([6, 5, 3])
    """
    return tensor.flip(dim).cumsum(dim).flip(dim) if reverse else tensor.cumsum(dim)


def repeat_along_head_dimension(
    tensor: Float[Tensor, "batch pos d_model"], n_heads: int, clone_tensor: bool = True
) -> Float[Tensor, "batch pos head d_model"]:
    """The same stream for each head.

    Args:
        tensor: the stream.
        n_heads: how many times.
        clone_tensor: give each head its own copy, which may be edited in place; else all are views of one.

    Example:
        >>> repeat_along_head_dimension(torch.ones(1, 5, 8), 2).shape
        torch.Size([1, 5, 2, 8])
    """
    repeated = tensor[:, :, None].expand(-1, -1, n_heads, -1)
    return repeated.clone() if clone_tensor else repeated
