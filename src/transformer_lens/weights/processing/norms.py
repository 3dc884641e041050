"""Folding: a norm's weight and bias, moved into the matrices that read its output (arXiv 1607.06450, 1910.07467).

With n the normalised stream, (n * w + b) W + c = n (w[:, None] * W) + (b W + c). A layer norm also subtracts the mean,
so n has none, and the mean of W over its input axis does nothing: it is taken out.
"""

import re
from typing import NamedTuple

import torch
from torch import Tensor

from transformer_lens.weights.matrix_index import WeightsError
from transformer_lens.weights.processing.parts import Part


class Reader(NamedTuple):
    """A matrix that reads a norm's output: its name, its input axis, and the bias beside it (None: there is none)."""

    weight: str
    axis: int
    bias: str | None


ATTENTION = [
    Reader("attn.W_Q", 1, "attn.b_Q"),
    Reader("attn.W_K", 1, "attn.b_K"),
    Reader("attn.W_V", 1, "attn.b_V"),
    Reader("attn._W_K", 1, "attn._b_K"),
    Reader("attn._W_V", 1, "attn._b_V"),
]
MLP = [Reader("mlp.W_in", 0, "mlp.b_in")]
GATED_MLP = [Reader("mlp.W_in", 0, None), Reader("mlp.W_gate", 0, None)]
GATED_MLP_WITH_BIASES = [Reader("mlp.W_in", 0, "mlp.b_in"), Reader("mlp.W_gate", 0, "mlp.b_gate")]
SOLU_LN = [Reader("mlp.W_out", 0, "mlp.b_out")]
UNEMBED = [Reader("unembed.W_U", 0, "unembed.b_U")]
# The router's matrix is mlp.W_gate.weight, and mlp.W_shared.weight weighs the expert that every token goes to.
ROUTED = re.compile(r"mlp\.((experts\.\d+|shared)\.(W_in|W_gate)|W_gate|W_shared)\.weight")


def readers(part: Part, norm: str, gate_biases: bool = False) -> list[Reader]:
    """The matrices of this part that read the output of `norm` ("ln1", "ln2", "mlp.ln" or "ln_final").

    With `gate_biases`, gated MLPs have biases before their activation and product.
    """
    match norm:
        case "ln1":
            known = ATTENTION
        case "mlp.ln":
            known = SOLU_LN
        case "ln_final":
            known = UNEMBED
        case _:
            routed = [name.removesuffix(".weight") for name in part if ROUTED.fullmatch(name)]
            known = [Reader(f"{name}.weight", 1, f"{name}.bias") for name in routed]
            gated = GATED_MLP_WITH_BIASES if gate_biases else GATED_MLP
            known = known or (gated if "mlp.W_gate" in part else MLP)
    return [reader for reader in known if reader.weight in part]


def fold_norm(
    part: Part, norm: str, *, mean_is_zero: bool, fold_biases: bool, center_weights: bool, gate_biases: bool
) -> None:
    """Fold `norm` into its readers and drop its weight and bias; nothing if the part does not hold them.

    Args:
        part: one layer, or norm and unembedding.
        norm: "ln1", "ln2", "mlp.ln" or "ln_final".
        mean_is_zero: the norm is a layer norm: its output, before weight and bias, has mean zero.
        fold_biases: False says that there is no bias to fold.
        center_weights: take the mean over the input axis out of readers of a layer norm.
        gate_biases: gated MLPs have biases before their activation and product.

    Raises:
        WeightsError: a bias that is not zero, and fold_biases is False.
    """
    weight, bias = part.pop(f"{norm}.w", None), part.pop(f"{norm}.b", None)
    if weight is None and bias is None:
        return
    if bias is not None and not bool(bias.any()):
        bias = None
    if bias is not None and not fold_biases:
        raise WeightsError(f"fold_biases=False would lose {norm}.b, which is not zero. Leave it True for layer norms.")
    for reader in readers(part, norm, gate_biases):
        _fold(part, reader, weight, bias, center=mean_is_zero and center_weights)


def _fold(part: Part, reader: Reader, weight: Tensor | None, bias: Tensor | None, *, center: bool) -> None:
    # NOTE: new weights are written once, by one operation, and what must be known for it is read in one product:
    # memory is what this costs.
    matrix, axis = part[reader.weight], reader.axis
    length = matrix.shape[axis]
    weight = matrix.new_ones(length) if weight is None else weight.to(matrix.dtype)
    bias = None if bias is None or reader.bias is None else bias.to(matrix.dtype)
    rows = [row for row in (weight / length if center else None, bias) if row is not None]
    products = list(torch.tensordot(torch.stack(rows), matrix, dims=([1], [axis]))) if rows else []
    if bias is not None and reader.bias is not None:
        moved = products.pop()
        part[reader.bias] = part[reader.bias] + moved if reader.bias in part else moved
    along, room = _along(weight, matrix, axis), part.room(reader.weight)
    if center:
        part[reader.weight] = torch.addcmul(products[0].neg().unsqueeze(axis), matrix, along, out=room)
    else:
        part[reader.weight] = torch.mul(matrix, along, out=room)


def _along(vector: Tensor, matrix: Tensor, axis: int) -> Tensor:
    shape = [1] * matrix.ndim
    shape[axis] = -1
    return vector.view(shape)
