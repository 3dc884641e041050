"""Biases that processing has made, moved to where an architecture has a place for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.config import HookedTransformerConfig

TOLERANCE = 1e-5
# What the bias of a norm is set to. The smaller, the less it disturbs rounding in the matrices behind it; but the more
# must be added to these. A power of two, between 1 / sqrt(d_model) and one.
CONSTANT = 0.25
# What reads each norm: the matrix, its input axis, the bias beside it.
ATTENTION = tuple((f"attn.{sign}W_{x}", 1, f"attn.{sign}b_{x}") for x in "QKV" for sign in ("", "_"))
MLP = (("mlp.W_in", 0, "mlp.b_in"), ("mlp.W_gate", 0, "mlp.b_gate"))
UNEMBED = (("unembed.W_U", 0, "unembed.b_U"),)


def absorb(
    state: Mapping[str, Float[Tensor, "..."]], places: set[str], cfg: HookedTransformerConfig, *, one_norm: bool
) -> dict[str, Float[Tensor, "..."]]:
    """The state with biases that have no place moved to where there is one, and everything computing the same.

    b_O goes back into b_V, from which folding took it: x with x · W_O = b_O, by least squares in float64. A bias beside
    a matrix W that reads a folded layer norm goes into that norm: its output n has mean zero, so with the norm's bias
    set to c · 1, (n + c · 1) times W + 1 ⊗ (b / c - 1 · W) / d_model is n · W + b, whatever n is. What cannot be moved
    exactly stays where it is.

    Args:
        state: canonical weights.
        places: the names that the architecture has tensors for.
        cfg: what the model is.
        one_norm: the architecture has one norm for attention and MLP.
    """
    state = dict(state)
    for layer in range(cfg.n_layers):
        _undo_value_fold(state, places, f"blocks.{layer}.attn.", grouped=cfg.n_key_value_heads is not None)
    if cfg.normalization_type not in ("LN", "LNPre"):
        return state
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}."
        if one_norm:
            _into_norm(state, places, block, ("ln1", "ln2"), (*ATTENTION, *MLP))
        else:
            _into_norm(state, places, block, ("ln1",), ATTENTION)
            _into_norm(state, places, block, ("ln2",), MLP)
    if not cfg.final_rms:
        _into_norm(state, places, "", ("ln_final",), UNEMBED)
    return state


def _undo_value_fold(state: dict[str, Tensor], places: set[str], attn: str, grouped: bool) -> None:
    source, target = f"{attn}b_O", f"{attn}_b_V" if grouped else f"{attn}b_V"
    if source in places or target not in state or not bool(state[source].any()):
        return
    W_O, wanted, old = state[f"{attn}W_O"].double(), state[source].double(), state[target]
    matrix = W_O.unflatten(0, (old.shape[0], -1)).sum(1).flatten(0, 1)  # [kv_head * d_head, d_model]
    solution = torch.linalg.lstsq(matrix.T, wanted[:, None], driver="gelsd").solution[:, 0]
    if float((solution @ matrix - wanted).abs().max()) <= TOLERANCE * max(1.0, float(wanted.abs().max())):
        state[target] = (old.double() + solution.view_as(old)).to(old.dtype)
        state[source] = torch.zeros_like(state[source])


def _into_norm(
    state: dict[str, Tensor],
    places: set[str],
    block: str,
    norms: tuple[str, ...],
    readers: tuple[tuple[str, int, str], ...],
) -> None:
    readers = tuple((block + matrix, axis, block + bias) for matrix, axis, bias in readers if block + matrix in state)
    homeless = [bias for _, _, bias in readers if bias in state and bias not in places and bool(state[bias].any())]
    weights, biases = ([f"{block}{norm}.{leaf}" for norm in norms] for leaf in "wb")
    folded = all(bool((state[name] == 1).all()) for name in weights if name in state)
    free = all(name in places and not bool(state[name].any()) for name in biases)
    if not homeless or not folded or not free:
        return
    for name in biases:
        state[name] = torch.full_like(state[name], CONSTANT)
    for matrix, axis, bias in readers:
        W = state[matrix].double()
        lack = -W.sum(axis, keepdim=True)
        if bias in homeless:
            lack = lack + state[bias].double().unsqueeze(axis) / CONSTANT
            state[bias] = torch.zeros_like(state[bias])
        state[matrix] = (W + lack / W.shape[axis]).to(state[matrix].dtype)
