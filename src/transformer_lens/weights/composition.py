"""How strongly the output of one attention head is read by the next: Q, K and V composition."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from transformer_lens.weights.factored_matrix import FactoredMatrix, upcast_for_linalg
from transformer_lens.weights.matrix_index import WeightsError

CompositionMode = Literal["Q", "K", "V"]
LayerWeights = Float[Tensor, "_layer _head _in _out"] | Sequence[Tensor | None]
"""Weights of all layers: one stacked tensor, or one tensor for each layer and None where there is no attention."""

BLOCK_FLOATS = 2_000_000  # floats held at once for each side: 8 MB
MIN_COLUMNS = 16  # below this width the products are no longer bound by arithmetic
# Below this cosine between two Gram matrices their inner product could be off by more than 1 part in 10,000 in float32.
EXACT_BELOW = 3e-4


@dataclass(frozen=True, eq=False)
class CompositionScores:
    """Scores [layer, head, layer, head] of a model in which only some layers have attention.

    layer_indices are the model's numbers of the layers that the axes run over; head_labels name their heads.

    >>> scores = CompositionScores(torch.zeros(1, 2, 1, 2), [4], ["L4H0", "L4H1"])
    >>> scores.shape, scores[0, 1].shape
    (torch.Size([1, 2, 1, 2]), torch.Size([1, 2]))
    """

    scores: Float[Tensor, "layer head layer head"]
    layer_indices: list[int]
    head_labels: list[str]

    @property
    def shape(self) -> torch.Size:
        """The shape of the scores."""
        return self.scores.shape

    @property
    def device(self) -> torch.device:
        """The device of the scores."""
        return self.scores.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the scores."""
        return self.scores.dtype

    def __getitem__(self, key: Any) -> Tensor:
        """A part of the scores, indexed by position among the attention layers."""
        return self.scores[key]


def composition_scores(
    left: FactoredMatrix, right: FactoredMatrix, broadcast_dims: bool = True
) -> Float[Tensor, "*leading_dims"]:
    """The scores ||L R|| / (||L|| ||R||) in Frobenius norms, between 0 and 1; float32 for low-precision weights.

    With broadcast_dims every matrix of left meets every matrix of right, and the axes are left's leading axes and
    then right's; without it the leading axes broadcast against each other. A matrix of zeros scores 0. No d_model x
    d_model product is formed: norms come from the mdim x mdim products of triangular factors.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".

    Raises:
        WeightsError: if the columns of left are not the rows of right, or leading axes do not broadcast.

    >>> read_write = FactoredMatrix(torch.eye(4, 1), torch.eye(1, 4))
    >>> composition_scores(read_write, read_write)
    tensor(1.)
    """
    if left.rdim != right.ldim:
        raise WeightsError(
            f"the columns of left must be the rows of right: left {tuple(left.shape)}, right {tuple(right.shape)}"
        )
    writes = _reduced(left.A, left.B)
    reads = _reduced(right.B.mT, right.A.mT)
    if broadcast_dims:
        flat = reads.reshape(-1, *reads.shape[-2:])
        numerator = writes.new_zeros(left.shape[:-2].numel(), len(flat))
        for i, w in enumerate(writes.reshape(-1, *writes.shape[-2:])):
            numerator[i] = _norm(torch.einsum("rd,nsd->nrs", w, flat))
        numerator = numerator.reshape(left.shape[:-2] + right.shape[:-2])
        left_norm = _norm(writes).reshape(left.shape[:-2] + (1,) * (right.ndim - 2))
        return _ratio(numerator, left_norm * _norm(reads))
    try:
        torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except RuntimeError as error:
        raise WeightsError(
            f"the leading axes do not broadcast: left {tuple(left.shape)}, right {tuple(right.shape)}"
        ) from error
    return _ratio(_norm(writes @ reads.mT), _norm(writes) * _norm(reads))


def all_composition_scores(
    mode: CompositionMode, *, W_Q: LayerWeights, W_K: LayerWeights, W_V: LayerWeights, W_O: LayerWeights
) -> Float[Tensor, "source_layer head layer head"]:
    """The composition of every head with every head of a later layer; zero where the source layer is not earlier.

    A source writes W_V W_O. It is read by W_Q W_K^T (mode "Q"), by its transpose ("K") or by W_V W_O ("V"). Each of
    W_Q, W_K, W_V is [layer, head, d_model, d_head], W_O [layer, head, d_head, d_model], or a sequence of such layers;
    W_K and W_V may hold kv heads. Where a layer is None its rows and columns are zero. Not differentiable.

    Source: Elhage et al. 2021. Cost for n heads in all: about n^2 d_model^2 / 2 + 2 n d_head d_model^2
    multiplications, and the memory of two of the four weights in float32 plus 16 MB.

    Raises:
        WeightsError: for an unknown mode, or layers that differ in shape.

    >>> weights = dict(W_Q=torch.randn(2, 3, 8, 4), W_K=torch.randn(2, 3, 8, 4))
    >>> weights |= dict(W_V=torch.randn(2, 3, 8, 4), W_O=torch.randn(2, 3, 4, 8))
    >>> scores = all_composition_scores("K", **weights)
    >>> scores.shape, scores[1].abs().max()
    (torch.Size([2, 3, 2, 3]), tensor(0.))
    """
    found = attention_composition_scores(mode, W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=W_O)
    n_layers, n_heads = len(W_O), found.shape[1]
    if len(found.layer_indices) == n_layers:
        return found.scores
    full = found.scores.new_zeros(n_layers, n_heads, n_layers, n_heads)
    layers = torch.tensor(found.layer_indices, device=full.device)
    full[layers[:, None], :, layers[None, :], :] = found.scores.transpose(1, 2)
    return full


@torch.no_grad()
def attention_composition_scores(
    mode: CompositionMode, *, W_Q: LayerWeights, W_K: LayerWeights, W_V: LayerWeights, W_O: LayerWeights
) -> CompositionScores:
    """The scores of all_composition_scores over the layers that have attention, with their numbers and head labels.

    Raises:
        WeightsError: for an unknown mode, layers that differ in shape, or a model without attention.

    >>> layer = dict(W_Q=torch.randn(2, 8, 4), W_K=torch.randn(2, 8, 4), W_V=torch.randn(2, 8, 4))
    >>> stacks = {name: [w, None, w] for name, w in layer.items()}
    >>> W_O = torch.randn(2, 4, 8)
    >>> scores = attention_composition_scores("V", **stacks, W_O=[W_O, None, W_O])
    >>> scores.layer_indices, scores.head_labels
    ([0, 2], ['L0H0', 'L0H1', 'L2H0', 'L2H1'])
    """
    if mode not in get_args(CompositionMode):
        raise WeightsError(f"mode is {mode!r}; composition is one of 'Q', 'K' and 'V'")
    layers = _attention_layers(W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=W_O)
    writes = _stacked([(w.V, w.O) for w in layers.values()])
    sides = {"Q": lambda w: (w.K, w.Q.mT), "K": lambda w: (w.Q, w.K.mT), "V": lambda w: (w.O.mT, w.V.mT)}
    reads = _stacked([sides[mode](w) for w in layers.values()])
    n_heads = len(writes) // len(layers)
    layer_of = torch.arange(len(layers), device=writes.device).repeat_interleave(n_heads)
    scores = _pair_scores(writes, reads, wanted=layer_of[:, None] < layer_of)
    labels = [f"L{layer}H{head}" for layer in layers for head in range(n_heads)]
    return CompositionScores(scores.reshape(len(layers), n_heads, len(layers), n_heads), list(layers), labels)


class _Layer(NamedTuple):
    """One layer's weights."""

    Q: Float[Tensor, "head d_model d_qk"]
    K: Float[Tensor, "kv_head d_model d_qk"]
    V: Float[Tensor, "kv_head d_model d_ov"]
    O: Float[Tensor, "head d_ov d_model"]  # noqa: E741


def _attention_layers(**stacks: LayerWeights) -> dict[int, _Layer]:
    """The layers that have attention by their number, checked against each other."""
    lengths = {name: len(stack) for name, stack in stacks.items()}
    if len(set(lengths.values())) > 1:
        raise WeightsError(f"the weights cover different numbers of layers: {lengths}")
    layers: dict[int, _Layer] = {}
    for number in range(lengths["W_O"]):
        weights = {name: stack[number] for name, stack in stacks.items()}
        present = {name: w for name, w in weights.items() if w is not None}
        if present and len(present) < len(weights):
            raise WeightsError(f"layer {number} has only {', '.join(present)}; a layer has all four weights or none")
        if present:
            layers[number] = _checked_layer(number, present)
    if not layers:
        raise WeightsError("no layer has attention weights")
    # Heads and d_model; d_head may differ from layer to layer.
    sizes = {number: (w.O.shape[0], w.O.shape[2]) for number, w in layers.items()}
    if len(set(sizes.values())) > 1:
        raise WeightsError(f"layers differ in (heads, d_model): {sizes}")
    return layers


def _checked_layer(number: int, weights: dict[str, Tensor]) -> _Layer:
    shapes = {name: tuple(w.shape) for name, w in weights.items()}
    Q, K, V, O = (weights[name] for name in ("W_Q", "W_K", "W_V", "W_O"))  # noqa: E741
    if any(w.ndim != 3 for w in weights.values()):
        raise WeightsError(f"layer {number}: each weight of a layer has three axes, head first: {shapes}")
    n_heads, d_ov, d_model = O.shape
    fits = (
        Q.shape[:2] == (n_heads, d_model)
        and K.shape[1:] == Q.shape[1:]
        and V.shape[1:] == (d_model, d_ov)
        and all(n_heads % w.shape[0] == 0 for w in (K, V))
    )
    if not fits:
        raise WeightsError(
            f"layer {number}: W_Q, W_K and W_V are [head, d_model, d_head], W_O is [head, d_head, d_model], "
            f"and heads are a multiple of kv heads: {shapes}"
        )
    return _Layer(Q, K, V, O)


def _stacked(circuits: list[tuple[Tensor, Tensor]]) -> Float[Tensor, "head rank d_model"]:
    """The reduced circuits (outer, inner) of all layers, kv heads repeated, lower ranks padded with zero rows."""
    n_heads = max(len(w) for w in circuits[0])
    rank = max(inner.shape[1] for _, inner in circuits)
    first = upcast_for_linalg(circuits[0][1])
    heads = first.new_zeros(len(circuits) * n_heads, rank, first.shape[-1])
    for place, (outer, inner) in zip(heads.split(n_heads), circuits, strict=True):
        outer, inner = (w.repeat_interleave(n_heads // len(w), 0) if len(w) < n_heads else w for w in (outer, inner))
        reduced = _reduced(outer, inner)
        place[:, : reduced.shape[1]] = reduced
    return heads


def _reduced(
    outer: Float[Tensor, "*leading_dims d_outer rank"], inner: Float[Tensor, "*leading_dims rank d_model"]
) -> Float[Tensor, "*leading_dims small_rank d_model"]:
    """R @ inner with outer = Q R: outer @ inner up to a rotation of its rows, so with its norms and products."""
    outer, inner = upcast_for_linalg(outer), upcast_for_linalg(inner)
    if outer.shape[-2] <= outer.shape[-1]:
        return outer @ inner
    # NOTE: mode "r" is twice as fast and has no derivative.
    needs_grad = torch.is_grad_enabled() and outer.requires_grad
    R: Tensor = torch.linalg.qr(outer, mode="reduced" if needs_grad else "r").R
    return R @ inner


def _pair_scores(
    writes: Float[Tensor, "source rank d_model"],
    reads: Float[Tensor, "reader reader_rank d_model"],
    wanted: Bool[Tensor, "source reader"],
) -> Float[Tensor, "source reader"]:
    """||w r^T|| / (||w|| ||r||) for all pairs, zero where not wanted.

    ||w r^T||^2 is the inner product of the Gram matrices w^T w and r^T r, so that all pairs cost one matrix product
    over d_model^2 entries (half of them: both are symmetric) instead of one product each.
    """
    d_model = writes.shape[-1]
    squares = writes.new_zeros(wanted.shape)
    width = min(d_model, max(MIN_COLUMNS, BLOCK_FLOATS // (max(wanted.shape) * d_model)))
    memory = [w.new_empty(len(w) * d_model * width) for w in (writes, reads)]
    for start in range(0, d_model, width):
        left, right = (_gram_block(w, start, width, out) for w, out in zip((writes, reads), memory, strict=True))
        right[:, :, width:] *= 2  # what lies beside the diagonal block stands for what lies below it
        squares.addmm_(left.flatten(1), right.flatten(1).mT)
    numerator = squares.clamp(min=0).sqrt()
    gram_norms = [_norm(w @ w.mT) for w in (writes, reads)]
    doubtful = wanted & (squares < EXACT_BELOW * gram_norms[0][:, None] * gram_norms[1])
    for i, j in doubtful.nonzero().tolist():
        numerator[i, j] = _norm(writes[i] @ reads[j].mT)
    return _ratio(numerator, _norm(writes)[:, None] * _norm(reads)) * wanted


def _gram_block(
    heads: Float[Tensor, "head rank d_model"], start: int, width: int, out: Float[Tensor, "floats"]
) -> Float[Tensor, "head rows columns"]:
    """Rows start to start + width of each Gram matrix, from the diagonal rightwards, in the memory given."""
    rows, columns = heads[:, :, start : start + width], heads[:, :, start:]
    shape = (len(heads), rows.shape[-1], columns.shape[-1])
    return torch.bmm(rows.mT, columns, out=out[: math.prod(shape)].view(shape))


def _norm(matrix: Float[Tensor, "*leading_dims row column"]) -> Float[Tensor, "*leading_dims"]:
    norms: Tensor = torch.linalg.vector_norm(matrix, dim=(-2, -1))
    return norms


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, with 0 / 0 = 0: a head of zeros composes with nothing."""
    return numerator / denominator.where(denominator > 0, torch.ones_like(denominator))
