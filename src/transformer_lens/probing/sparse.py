"""k-sparse probes: how much a few neurons alone say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.probing.linear import LinearProbe, ProbeOptions, fit_probe
from transformer_lens.probing.splits import Split

Ranking = Literal["mean_difference", "f_score"]


@dataclass(frozen=True)
class SparseProbe:
    """A probe on k features.

    Attributes:
        features: which, the most telling first.
        probe: the probe on them, in this order.
    """

    features: Int[Tensor, "k"]
    probe: LinearProbe


def rank_features(
    features: Float[Tensor, "example feature"], labels: Int[Tensor, "example"], by: Ranking = "mean_difference"
) -> Float[Tensor, "feature"]:
    """How telling each feature is of the classes on its own, the greater the more.

    "mean_difference": the greatest difference between two classes' means, over the feature's deviation.
    "f_score": the variance between classes over that within them (one-way analysis of variance).

    Raises:
        ValueError: no such ranking, or fewer than two classes.

    Example:
        >>> features = torch.tensor([[0.0, 5.0], [1.0, 5.0], [0.0, 9.0], [1.0, 9.0]])
        >>> rank_features(features, torch.tensor([0, 0, 1, 1]))
        tensor([0., 2.])
    """
    if by not in get_args(Ranking):
        raise ValueError(f"by is one of {', '.join(get_args(Ranking))}; got {by!r}.")
    classes = [features[labels == label] for label in labels.unique()]
    if len(classes) < 2:
        raise ValueError(f"Ranking features needs two classes; got {len(classes)}.")
    means = torch.stack([rows.mean(0) for rows in classes])
    if by == "mean_difference":
        deviation = features.std(0, correction=0)
        return _quotient(means.amax(0) - means.amin(0), deviation)
    sizes = torch.tensor([len(rows) for rows in classes], dtype=features.dtype, device=features.device)
    between = (sizes[:, None] * (means - features.mean(0)) ** 2).sum(0) / (len(classes) - 1)
    within = sum(((rows - rows.mean(0)) ** 2).sum(0) for rows in classes) / max(len(features) - len(classes), 1)
    return _quotient(between, torch.as_tensor(within))


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    """The quotient, 0 for a feature that never changes."""
    return torch.where(below > 1e-12, above / below.clamp_min(1e-12), torch.zeros_like(above))


def fit_sparse_probe(
    features: Float[Tensor, "example feature"],
    labels: Int[Tensor, "example"],
    split: Split,
    *,
    k: int,
    by: Ranking = "mean_difference",
    options: ProbeOptions | None = None,
) -> SparseProbe:
    """The logistic probe on the k features that tell most on their own.

    Features are chosen on the training side alone: chosen on all examples, the test score would be too good. Source:
    Gurnee et al., "Finding Neurons in a Haystack: Case Studies with Sparse Probing", 2023, arXiv 2305.01610.

    Args:
        features: activations, of neurons for instance.
        labels: classes.
        split: which examples are fitted.
        k: how many features.
        by: what features are ranked by.
        options: how the probe is fitted.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ValueError: k is below 1 or above the number of features.

    Example:
        >>> features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
        >>> labels = (features[:, 5] > 0).long()
        >>> found = fit_sparse_probe(features, labels, Split(torch.arange(40), torch.arange(40, 60)), k=1)
        >>> found.features.tolist(), found.probe.test_score > 0.9
        ([5], True)
    """
    if not 1 <= k <= features.shape[1]:
        raise ValueError(f"k is from 1 to {features.shape[1]}, the number of features; got {k}.")
    options = ProbeOptions() if options is None else options
    if options.kind != "logistic":
        raise ValueError(f"A sparse probe is of classes: kind='logistic'; got {options.kind!r}.")
    telling = rank_features(features[split.train].detach().float(), labels[split.train], by)
    chosen = telling.topk(k).indices
    return SparseProbe(chosen, fit_probe(features[:, chosen], labels, split, options=options))
