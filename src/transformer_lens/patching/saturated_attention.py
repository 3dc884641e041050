"""What a new query or key does to an attention pattern, exactly: where softmax is saturated its gradient says nothing.

After Kramár et al. 2024 (arXiv 2403.00745), section 3.1.1. Only the pattern and the change of scores are needed: adding
d to a score multiplies its probability by exp(d), and what the row then lacks to one goes to all. Attention sinks keep
their share: a row of a pattern may sum to less than one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.config import HookedTransformerConfig

Scores = Float[Tensor, "batch head query key"]
Heads = Float[Tensor, "batch pos head d_head"]
LARGEST = 60.0  # exp(60) is far beyond what can matter, and its products still fit in float32


def score_change(
    cfg: HookedTransformerConfig, layer: int, *, queries: tuple[Heads, Heads], keys: tuple[Heads, Heads]
) -> Scores:
    """How much each attention score changes from old to new queries and keys (as attention multiplies them).

    Args:
        cfg: of the model: what scores are divided by, and their soft cap.
        layer: which layer it is.
        queries: old and new ones, [batch, pos, head, d_head].
        keys: old and new ones; there may be fewer heads.
    """
    scale = cfg.attn_scale if cfg.use_attn_scale else 1.0
    if cfg.scale_attn_by_inverse_layer_idx:
        scale *= layer + 1
    old, new = (_scores(q, k) / scale for q, k in zip(queries, keys, strict=True))
    cap = cfg.attn_scores_soft_cap
    return cap * (new / cap).tanh() - cap * (old / cap).tanh() if cap > 0 else new - old


def _scores(q: Heads, k: Heads) -> Scores:
    k = k.repeat_interleave(q.shape[2] // k.shape[2], 2)
    return torch.einsum("bqhd,bkhd->bhqk", q.float(), k.float())


def effect_of_queries(
    pattern: Scores, change: Scores, gradient: Scores, *, sinks: bool = False
) -> Float[Tensor, "batch head query"]:
    """What the metric gains, by its gradient at the pattern, when all scores of a query change.

    Args:
        pattern: before.
        change: of the scores.
        gradient: of the metric, at the pattern.
        sinks: rows of the pattern sum to less than one, and what is left of one keeps its score.

    Example:
        >>> pattern, gradient = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[[[1.0, 0.0]]]])
        >>> effect_of_queries(pattern, torch.tensor([[[[3.0, 3.0]]]]), gradient)  # both alike: nothing changes
        tensor([[[0.]]])
    """
    logits = pattern.log() + change.masked_fill(pattern == 0, 0.0)
    if sinks:
        logits = torch.cat([logits, (1 - pattern.sum(-1, keepdim=True)).clamp(min=0).log()], -1)
    new = logits.softmax(-1)[..., : pattern.shape[-1]]
    return ((new - pattern) * gradient).sum(-1)


def effect_of_keys(
    pattern: Scores, change: Scores, gradient: Scores, *, sinks: bool = False
) -> Float[Tensor, "batch head key"]:
    """What the metric gains, by its gradient at the pattern, when the scores of one key change, for each key alone.

    Arguments as for `effect_of_queries`.

    Example:
        >>> pattern, gradient = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[[[1.0, 0.0]]]])
        >>> effect_of_keys(pattern, torch.tensor([[[[50.0, -50.0]]]]), gradient)  # either way the first gets all
        tensor([[[0.5000, 0.5000]]])
    """
    # NOTE: in float64, since what other keys have is found by taking a probability of nearly one from one.
    p, g = pattern.double(), gradient.double()
    growth = change.double().masked_fill(pattern == 0, 0.0).clamp(max=LARGEST).exp()
    row, whole = (p * g).sum(-1, keepdim=True), p.sum(-1, keepdim=True)
    if sinks:
        whole = whole.clamp(min=1.0)
    total = whole - p + p * growth  # what the row would sum to, before it is divided by that
    others, own = (row - p * g) * (1 / total - 1), g * p * (growth / total - 1)
    return (others + own).sum(2).to(pattern.dtype)
