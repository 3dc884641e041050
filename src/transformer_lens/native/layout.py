"""Memory layouts: parameters have the field's shapes, and memory in which the matmul needs no copy.

`W_Q` has shape [head, d_model, d_head], as papers write it. Its memory is one block [head * d_head, d_model], as
`torch.nn.Linear` keeps it, seen through strides. The matrix that a matmul wants is then a view. Strides survive
`.to`, deepcopy, pickling, optimizers and `load_state_dict`; a weight assigned in another layout is only slower.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear


def heads_in(n_heads: int, d_model: int, d_head: int, **kwargs: object) -> nn.Parameter:
    """An uninitialised weight [head, d_model, d_head] over the memory of a Linear(d_model, head * d_head)."""
    return nn.Parameter(torch.empty(n_heads, d_head, d_model, **kwargs).transpose(1, 2))  # type: ignore[call-overload]


def heads_out(n_heads: int, d_head: int, d_model: int, **kwargs: object) -> nn.Parameter:
    """An uninitialised weight [head, d_head, d_model] over the memory of a Linear(head * d_head, d_model)."""
    block = torch.empty(d_model, n_heads * d_head, **kwargs)  # type: ignore[call-overload]
    return nn.Parameter(block.T.unflatten(0, (n_heads, d_head)))


def matrix(d_in: int, d_out: int, **kwargs: object) -> nn.Parameter:
    """An uninitialised weight [d_in, d_out] over the memory of a Linear(d_in, d_out)."""
    return nn.Parameter(torch.empty(d_out, d_in, **kwargs).T)  # type: ignore[call-overload]


def project_in(
    x: Float[Tensor, "batch pos d_model"],
    weight: Float[Tensor, "head d_model d_head"],
    bias: Float[Tensor, "head d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """x · W + b for each head."""
    n_heads, d_model, d_head = weight.shape
    block = weight.permute(1, 0, 2).reshape(d_model, n_heads * d_head)  # a view, in our own layout
    heads: Tensor = linear(x, block.T, bias.flatten()).unflatten(-1, (n_heads, d_head))
    return heads


def project_out(
    z: Float[Tensor, "batch pos head d_head"],
    weight: Float[Tensor, "head d_head d_model"],
    bias: Float[Tensor, "d_model"],
) -> Float[Tensor, "batch pos d_model"]:
    """The sum over heads of z · W, plus b."""
    return linear(z.flatten(-2), weight.flatten(0, 1).T, bias)
