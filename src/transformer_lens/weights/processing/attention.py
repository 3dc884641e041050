"""Attention's own redundancies: value biases, and the bases of its factored matrices."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from transformer_lens.weights.factored_matrix import FactoredMatrix
from transformer_lens.weights.processing.parts import Part

RANK_TOLERANCE = 1e-6  # of the largest singular value: what rounding weights to float32 leaves of a zero


def fold_values(part: Part) -> None:
    """Move b_V through W_O into b_O: pattern rows sum to 1, so every position gets the same b_V · W_O."""
    name = "attn._b_V" if "attn._b_V" in part else "attn.b_V"
    bias = part.get(name)
    if bias is None or not bool(bias.any()):
        return
    W_O = part["attn.W_O"]
    each_head = bias.repeat_interleave(W_O.shape[0] // bias.shape[0], 0)
    moved = torch.einsum("hk,hkd->d", each_head, W_O)
    part["attn.b_O"] = part["attn.b_O"] + moved if "attn.b_O" in part else moved
    part[name] = torch.zeros_like(bias)


def refactor(part: Part) -> None:
    """Rewrite each head in the basis of its singular vectors.

    W_Q · W_K^T (biases as one more row of each) becomes (U √S)(V √S)^T, and W_V · W_O becomes (U S) V^T, largest
    first; b_V moves into b_O. The sign of each pair of vectors is fixed: the entry of W_Q (or W_V) that is largest in
    absolute value is positive.
    """
    if "attn.W_Q" not in part:
        return
    queries, keys = _with_bias(part, "Q"), _with_bias(part, "K")
    U, S, V = _singular(queries, keys.transpose(-2, -1))
    root = S.sqrt()[..., None, :]
    _without_bias(part, "Q", (U * root).to(queries.dtype))
    _without_bias(part, "K", (V * root).to(keys.dtype))
    fold_values(part)
    W_V, W_O = part["attn.W_V"], part["attn.W_O"]
    U, S, V = _singular(W_V, W_O)
    part["attn.W_V"] = (U * S[..., None, :]).to(W_V.dtype)
    part["attn.W_O"] = V.transpose(-2, -1).to(W_O.dtype).contiguous()


def _with_bias(part: Part, letter: str) -> Float[Tensor, "head d_model_plus_1 d_head"]:
    weight = part[f"attn.W_{letter}"]
    bias = part.get(f"attn.b_{letter}")
    if bias is None:
        bias = weight.new_zeros(weight.shape[0], weight.shape[2])
    return torch.cat([weight, bias[:, None]], 1)


def _without_bias(part: Part, letter: str, both: Float[Tensor, "head d_model_plus_1 d_head"]) -> None:
    part[f"attn.W_{letter}"] = both[:, :-1].contiguous()
    part[f"attn.b_{letter}"] = both[:, -1].contiguous()


def _singular(A: Float[Tensor, "head n d_head"], B: Float[Tensor, "head d_head m"]) -> tuple[Tensor, Tensor, Tensor]:
    """U [head, n, d_head], S [head, d_head] and V [head, m, d_head] of A · B, with fixed signs."""
    if A.device.type != "mps":  # which has no float64
        A, B = A.double(), B.double()
    U, S, V = FactoredMatrix(A, B).svd()
    largest = U.gather(-2, U.abs().argmax(-2, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(U.dtype)
    # Directions that a head does not use are zero, not arbitrary; heads wider than the stream have some in any case.
    used = (RANK_TOLERANCE * S.amax(-1, keepdim=True) < S)[..., None, :]
    missing = (0, A.shape[-1] - S.shape[-1])
    return pad(U * sign * used, missing), pad(S, missing), pad(V * sign * used, missing)
