"""Folding and centring of single matrices in the shapes of `HookedTransformer`: the input axis is the last but one."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

Matrix = Float[Tensor, "*head d_model out"]
Bias = Float[Tensor, "*head out"]
Stream = Float[Tensor, "d_model"]


def fold_norm_bias(matrix: Matrix, bias: Bias, norm_bias: Stream) -> Bias:
    """The bias of what reads a norm, once the norm has none: bias + norm_bias · matrix.

    Example:
        >>> import torch
        >>> fold_norm_bias(torch.eye(2), torch.zeros(2), torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    return bias + (norm_bias[:, None] * matrix).sum(-2)


def fold_norm_weight(matrix: Matrix, norm_weight: Stream) -> Matrix:
    """The matrix that reads a norm, once the norm has no weight: each input row times its weight.

    Example:
        >>> import torch
        >>> fold_norm_weight(torch.ones(2, 1), torch.tensor([1.0, 2.0])).flatten()
        tensor([1., 2.])
    """
    return matrix * norm_weight[:, None]


def center_input(matrix: Matrix) -> Matrix:
    """The matrix without its mean over the input axis, which a layer norm before it makes invisible.

    Example:
        >>> import torch
        >>> center_input(torch.tensor([[1.0], [3.0]])).flatten()
        tensor([-1.,  1.])
    """
    return matrix - matrix.mean(-2, keepdim=True)
