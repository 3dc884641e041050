"""Linear maps with a bias, in the shapes that attention and MLPs have."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.native.layout import project_in


def vanilla_addmm(
    input: Float[Tensor, "..."], mat1: Float[Tensor, "m n"], mat2: Float[Tensor, "n o"]
) -> Float[Tensor, "m o"]:
    """mat1 · mat2 + input.

    Args:
        input: the bias, [o] or [m, o] or one number.
        mat1, mat2: two matrices.

    Example:
        >>> vanilla_addmm(torch.ones(2), torch.eye(2), torch.eye(2))
        tensor([[2., 1.],
                [1., 2.]])
    """
    return torch.addmm(input, mat1, mat2)


def batch_addmm(
    bias: Float[Tensor, "..."], weight: Float[Tensor, "d_in d_out"], x: Float[Tensor, "*leading d_in"]
) -> Float[Tensor, "*leading d_out"]:
    """x · weight + bias, for any axes in front.

    Example:
        >>> batch_addmm(torch.ones(2), torch.eye(2), torch.zeros(3, 1, 2)).shape
        torch.Size([3, 1, 2])
    """
    return torch.nn.functional.linear(x, weight.T, bias)


def simple_attn_linear(
    input: Float[Tensor, "batch pos d_model"],
    w: Float[Tensor, "head d_model d_head"],
    b: Float[Tensor, "head d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Queries, keys or values of every head, from one stream that they share.

    Example:
        >>> simple_attn_linear(torch.ones(1, 5, 8), torch.ones(2, 8, 4), torch.zeros(2, 4)).shape
        torch.Size([1, 5, 2, 4])
    """
    return project_in(input, w, b)


def complex_attn_linear(
    input: Float[Tensor, "batch pos head d_model"],
    w: Float[Tensor, "head d_model d_head"],
    b: Float[Tensor, "head d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Queries, keys or values of every head, each from its own stream.

    Example:
        >>> complex_attn_linear(torch.ones(1, 5, 2, 8), torch.ones(2, 8, 4), torch.zeros(2, 4)).shape
        torch.Size([1, 5, 2, 4])
    """
    return torch.einsum("bphd,hdk->bphk", input, w) + b


def clamp_qkv(
    q: Float[Tensor, "..."], k: Float[Tensor, "..."], v: Float[Tensor, "..."], clip: float
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Queries, keys and values, each kept between -clip and clip.

    Example:
        >>> q, k, v = clamp_qkv(torch.tensor(3.0), torch.tensor(-3.0), torch.tensor(0.5), clip=1.0)
        >>> q, k, v
        (tensor(1.), tensor(-1.), tensor(0.5000))
    """
    return q.clamp(-clip, clip), k.clamp(-clip, clip), v.clamp(-clip, clip)
