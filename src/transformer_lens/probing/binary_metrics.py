"""How well log-odds tell two classes apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class SparseProbeMetrics:
    """How well a probe of two classes does on examples held out.

    Attributes:
        true_positives, true_negatives, false_positives, false_negatives: examples; log-odds of 0 or more say positive.
        accuracy, precision, recall, f1: from these counts, from 0 to 1; 0 where there is nothing to divide by.
        roc_auc: how often a positive example has higher log-odds than a negative one; equal ones count half. NaN where
            a class is absent.
        average_precision: the precision at each threshold, weighted by the recall gained there; equal log-odds are one
            threshold. NaN without positive examples, and 1 without negative ones.
    """

    true_positives: int
    true_negatives: int
    false_positives: int
    false_negatives: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    roc_auc: float
    average_precision: float


def binary_metrics(log_odds: Float[Tensor, "example"], positive: Bool[Tensor, "example"]) -> SparseProbeMetrics:
    """Counts, and measures with and without a threshold.

    Example:
        >>> found = binary_metrics(torch.tensor([2.0, -1.0, 1.0]), torch.tensor([True, True, False]))
        >>> found.true_positives, found.precision, found.roc_auc
        (1, 0.5, 0.5)
    """
    said = log_odds >= 0
    hits, right = int((said & positive).sum()), int((said == positive).sum())
    n_said, n_positive, n_examples = int(said.sum()), int(positive.sum()), len(positive)
    return SparseProbeMetrics(
        true_positives=hits,
        true_negatives=right - hits,
        false_positives=n_said - hits,
        false_negatives=n_positive - hits,
        accuracy=_share(right, n_examples),
        precision=_share(hits, n_said),
        recall=_share(hits, n_positive),
        f1=_share(2 * hits, n_said + n_positive),
        roc_auc=_roc_auc(log_odds[positive], log_odds[~positive]),
        average_precision=_average_precision(log_odds, positive),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _roc_auc(positive: Float[Tensor, "positive"], negative: Float[Tensor, "negative"]) -> float:
    ordered = negative.sort().values
    below, up_to = (torch.searchsorted(ordered, positive, right=right).double() for right in (False, True))
    return float((below + up_to).mean()) / (2 * len(negative)) if len(negative) else float("nan")


def _average_precision(log_odds: Float[Tensor, "example"], positive: Bool[Tensor, "example"]) -> float:
    thresholds, place = log_odds.unique(return_inverse=True)
    said, hits = (torch.bincount(some, minlength=len(thresholds)).flip(0).double() for some in (place, place[positive]))
    precision = hits.cumsum(0) / said.cumsum(0)
    return float((hits / positive.sum() * precision).sum())
