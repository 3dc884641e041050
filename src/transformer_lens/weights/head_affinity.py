"""Which heads share a subspace of the stream: what one writes and another reads, whatever the strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transformer_lens.weights.matrix_index import WeightsError
from transformer_lens.weights.subspaces import orthonormal_subspace

AttentionRole = Literal["Q", "K", "V", "O"]
HeadKind = Literal["query", "key_value"]
LayerOrder = Literal["forward", "all"]


@dataclass(frozen=True)
class AttentionHeadRef:
    """One weight of one head.

    Attributes:
        layer, head: which; of key and value heads where `kind` says so.
        role: which of W_Q, W_K, W_V, W_O.
        kind: "query" for heads that have queries, "key_value" for those that several of them share.
    """

    layer: int
    head: int
    role: AttentionRole
    kind: HeadKind

    @property
    def label(self) -> str:
        """The head and its role, as in L4H7.O (L4KV1.K for key and value heads)."""
        return f"L{self.layer}{'H' if self.kind == 'query' else 'KV'}{self.head}.{self.role}"


@dataclass(frozen=True)
class HeadAffinityPair:
    """Two heads and what their subspaces share: see `ProjectionKernelResult`."""

    source: AttentionHeadRef
    target: AttentionHeadRef
    score: float
    normalized: float


@dataclass(frozen=True, eq=False)
class HeadAffinityResult:
    """The projection kernel of every source head with every target head.

    Attributes:
        scores, normalized: see `ProjectionKernelResult`; zero where a pair is not valid.
        valid_mask: which pairs the order of layers allows.
        source_role, target_role: which weights.
        source_layer_indices, target_layer_indices: the model's numbers of the layers that the axes run over.
        source_head_kind, target_head_kind: which heads the axes run over.
        source_ranks, target_ranks: of each head's subspace.
        source_rank, target_rank: the greatest of them.
        rank: as it was asked for.
        rtol: of the ranks.
    """

    scores: Float[Tensor, "source_layer source_head target_layer target_head"]
    normalized: Float[Tensor, "source_layer source_head target_layer target_head"]
    valid_mask: Bool[Tensor, "source_layer source_head target_layer target_head"]
    source_role: AttentionRole
    target_role: AttentionRole
    source_layer_indices: tuple[int, ...]
    target_layer_indices: tuple[int, ...]
    source_head_kind: HeadKind
    target_head_kind: HeadKind
    source_ranks: Int[Tensor, "source_layer source_head"]
    target_ranks: Int[Tensor, "target_layer target_head"]
    source_rank: int
    target_rank: int
    rank: int | None
    rtol: float

    def top_pairs(self, k: int = 20, *, normalized: bool = False) -> list[HeadAffinityPair]:
        """The k valid pairs of greatest score (or normalized score), best first."""
        by = (self.normalized if normalized else self.scores).masked_fill(~self.valid_mask, -1.0)
        best = by.flatten().topk(min(k, int(self.valid_mask.sum()))).indices
        return [self._pair(*place) for place in torch.stack(torch.unravel_index(best, by.shape), 1).tolist()]

    def _pair(self, layer: int, head: int, to_layer: int, to_head: int) -> HeadAffinityPair:
        place = (layer, head, to_layer, to_head)
        source_layer, target_layer = self.source_layer_indices[layer], self.target_layer_indices[to_layer]
        return HeadAffinityPair(
            AttentionHeadRef(source_layer, head, self.source_role, self.source_head_kind),
            AttentionHeadRef(target_layer, to_head, self.target_role, self.target_head_kind),
            float(self.scores[place]),
            float(self.normalized[place]),
        )


@torch.no_grad()
def attention_head_subspace_affinity(
    model: Any,
    *,
    source_role: AttentionRole = "O",
    target_role: AttentionRole,
    layer_order: LayerOrder = "forward",
    rank: int | None = None,
    rtol: float | None = None,
) -> HeadAffinityResult:
    """What the subspaces of the stream that heads write (O) or read (Q, K, V) share, for all pairs of heads.

    Unlike composition scores, this ignores how strongly a direction is written or read. Compare a score with
    `random_projection_kernel_moments`.

    Args:
        model: the model, on either host; on a bridge K and V run over key and value heads.
        source_role, target_role: whose subspaces: "Q", "K", "V" or "O".
        layer_order: "forward": the target is in a later layer than the source; "all": any pair.
        rank: of each subspace, the directions of greatest singular value; None: the rank that the weights have.
        rtol: see `orthonormal_subspace`.

    Raises:
        WeightsError: no such role or order, or a rank that a head does not have.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> found = attention_head_subspace_affinity(model, target_role="Q", rank=4)
        >>> found.scores.shape == (4, model.cfg.n_heads, 4, model.cfg.n_heads)
        True
    """
    for role in (source_role, target_role):
        if role not in get_args(AttentionRole):
            raise WeightsError(f"A role is one of {', '.join(get_args(AttentionRole))}; got {role!r}.")
    if layer_order not in get_args(LayerOrder):
        raise WeightsError(f"layer_order is one of {', '.join(get_args(LayerOrder))}; got {layer_order!r}.")
    layers = tuple(range(model.cfg.n_layers))
    source, target = _Heads(model, source_role, rank, rtol), _Heads(model, target_role, rank, rtol)
    valid = torch.ones(len(layers), len(layers), dtype=torch.bool)
    valid = (valid.triu(1) if layer_order == "forward" else valid)[:, None, :, None]
    valid = valid.expand(len(layers), source.ranks.shape[1], len(layers), target.ranks.shape[1])
    shared = [torch.einsum("hdr,mkds->hmkrs", layer, target.bases).square().sum((-1, -2)) for layer in source.bases]
    scores = torch.stack(shared) * valid
    ranks = source.ranks[:, :, None, None] * target.ranks
    return HeadAffinityResult(
        scores, scores / ranks.sqrt(), valid, source_role, target_role, layers, layers, source.kind, target.kind,
        source.ranks, target.ranks, int(source.ranks.max()), int(target.ranks.max()), rank, source.rtol,
    )  # fmt: skip


class _Heads:
    """An orthonormal basis for each head, its columns padded with zeros to the width of the weights."""

    def __init__(self, model: Any, role: AttentionRole, rank: int | None, rtol: float | None):
        weights = _weights(model, role).detach().cpu()  # [layer, head, d_model, d_head]
        found = [[orthonormal_subspace(head, rank=rank, rtol=rtol) for head in layer] for layer in weights]
        self.bases = torch.stack([_padded([head.basis for head in layer], weights.shape[-1]) for layer in found])
        self.ranks = torch.tensor([[head.rank for head in layer] for layer in found])
        self.rtol = found[0][0].rtol
        shared = weights.shape[1] != model.cfg.n_heads
        self.kind: HeadKind = "key_value" if shared else "query"


def _weights(model: Any, role: AttentionRole) -> Tensor:
    found: Tensor
    match role:
        case "Q":
            found = model.W_Q
        case "K":
            found = model.W_K
        case "V":
            found = model.W_V
        case "O":
            found = model.W_O.mT
    return found


def _padded(bases: Sequence[Tensor], width: int) -> Float[Tensor, "head d_model width"]:
    return torch.stack([torch.nn.functional.pad(basis, (0, width - basis.shape[1])) for basis in bases])
