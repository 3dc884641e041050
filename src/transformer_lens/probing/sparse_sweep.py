"""Sparse probes over a range of k, against random features and against shuffled labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from transformer_lens.probing.binary_metrics import SparseProbeMetrics
from transformer_lens.probing.logistic import ConvergenceError
from transformer_lens.probing.sparse_logistic import (
    Labels,
    Preprocess,
    Sides,
    SparseProbeOptions,
    SparseProbeResult,
    sparse_probe,
)

Arm = Literal["random_coordinate", "label_shuffle"]


@dataclass(frozen=True, eq=False)
class SparseProbeControl:
    """How well control probes of one k do on the test side, one row for each that reached its optimum.

    Attributes:
        supports: the features of each.
        accuracy, precision, recall, f1, roc_auc, average_precision: see `SparseProbeMetrics`.
    """

    supports: Int[Tensor, "repeat selected_feature"]
    accuracy: Float[Tensor, "repeat"]
    precision: Float[Tensor, "repeat"]
    recall: Float[Tensor, "repeat"]
    f1: Float[Tensor, "repeat"]
    roc_auc: Float[Tensor, "repeat"]
    average_precision: Float[Tensor, "repeat"]

    @classmethod
    def of(cls, k: int, found: Sequence[tuple[Tensor, SparseProbeMetrics]]) -> SparseProbeControl:
        """The rows, from features and metrics of each."""
        supports = torch.stack([support for support, _ in found]) if found else torch.empty(0, k, dtype=torch.long)
        names = ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision")
        columns = {name: [vars(metrics)[name] for _, metrics in found] for name in names}
        return cls(supports, **{name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()})


@dataclass(frozen=True, eq=False)
class SparseProbeRejection:
    """A control probe that did not reach its optimum, and is left out.

    Attributes:
        arm: "random_coordinate" or "label_shuffle".
        k: how many features.
        repeat: which control, from 0.
        support: its features.
        reason: what the fit said.
    """

    arm: Arm
    k: int
    repeat: int
    support: Int[Tensor, "selected_feature"]
    reason: str


@dataclass(frozen=True, eq=False)
class SparseProbeSweep:
    """Probes over a range of k on one split, each with its controls.

    Attributes:
        ks: how many features.
        results: the probe of each k.
        random_coordinate_controls: probes of each k on features drawn at random.
        label_shuffle_controls: probes of each k chosen and fitted on shuffled labels, tested on the true ones.
        seed: of the split and of controls.
        rejections: controls that did not reach their optimum.
    """

    ks: tuple[int, ...]
    results: tuple[SparseProbeResult, ...]
    random_coordinate_controls: tuple[SparseProbeControl, ...]
    label_shuffle_controls: tuple[SparseProbeControl, ...]
    seed: int
    rejections: tuple[SparseProbeRejection, ...] = ()


def sweep_sparse_probe(
    features: Float[Tensor, "example feature"],
    labels: Labels,
    *,
    ks: Sequence[int],
    test_fraction: float = 0.3,
    positive_label: int | bool = 1,
    groups: Integer[Tensor, "example"] | None = None,
    preprocess: Preprocess = "none",
    std_floor: float = 0.001,
    class_weight: Literal["balanced"] | None = "balanced",
    l2_strength: float = 0.01,
    n_random_subsets: int = 0,
    n_label_shuffles: int = 0,
    seed: int = 0,
    max_iter: int = 200,
    max_refinement_steps: int = 25,
    decrement_tolerance: float = 1e-12,
) -> SparseProbeSweep:
    """A sparse probe for each k on one split, with controls: random features, and shuffled training labels.

    Each control is drawn once for all k, so that its curve over k is of one draw, whatever other k are asked for.

    Args:
        features, labels, groups: as for `fit_sparse_probe`.
        ks: growing numbers of features.
        n_random_subsets: how many sets of random features for each k; those of a smaller k are among those of a larger.
        n_label_shuffles: how many shuffles of the training labels.
        test_fraction, positive_label, preprocess, std_floor, class_weight, l2_strength, seed, max_iter,
            max_refinement_steps, decrement_tolerance: see `SparseProbeOptions`.

    Raises:
        ConvergenceError: a probe did not reach its optimum (controls that do not are in `rejections`).
        ValueError: as `fit_sparse_probe`; or ks do not grow, or a number of controls below 0.

    Example:
        >>> features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
        >>> found = sweep_sparse_probe(features, features[:, 5] > 0, ks=[1, 2], n_random_subsets=3)
        >>> [result.selected_features[0].item() for result in found.results]
        [5, 5]
        >>> found.random_coordinate_controls[1].supports.shape
        torch.Size([3, 2])
    """
    if not ks or list(ks) != sorted(set(ks)):
        raise ValueError(f"ks are numbers of features that grow, one at least; got {list(ks)}.")
    if n_random_subsets < 0 or n_label_shuffles < 0:
        raise ValueError(f"There are 0 controls or more; got {n_random_subsets} and {n_label_shuffles}.")
    options = SparseProbeOptions(
        test_fraction, positive_label, preprocess, std_floor, class_weight, l2_strength, seed, max_iter,
        max_refinement_steps, decrement_tolerance,
    )  # fmt: skip
    sides = Sides.of(features, labels, options, groups=groups)
    results = tuple(sparse_probe(sides, k, options) for k in ks)
    drawn = _Controls(sides, options, _random_orders(sides, n_random_subsets, seed + 1))
    shuffled = _Controls(sides, options, _shuffled(sides, n_label_shuffles, seed + 2))
    rejections: list[SparseProbeRejection] = []
    return SparseProbeSweep(
        tuple(ks),
        results,
        tuple(drawn.of(k, "random_coordinate", rejections) for k in ks),
        tuple(shuffled.of(k, "label_shuffle", rejections) for k in ks),
        seed,
        tuple(rejections),
    )


Draw = tuple[Int[Tensor, "feature"], Bool[Tensor, "train"]]


def _random_orders(sides: Sides, count: int, seed: int) -> list[Draw]:
    """The features in random order, with the true labels."""
    generator, width = torch.Generator().manual_seed(seed), sides.features.shape[1]
    positive = sides.positive[sides.split.train]
    return [(torch.randperm(width, generator=generator), positive) for _ in range(count)]


def _shuffled(sides: Sides, count: int, seed: int) -> list[Draw]:
    """The features in the order that shuffled labels give, with those labels."""
    generator, positive = torch.Generator().manual_seed(seed), sides.positive[sides.split.train]
    draws = [positive[torch.randperm(len(positive), generator=generator)] for _ in range(count)]
    return [(sides.chosen(sides.scores(some), sides.features.shape[1]), some) for some in draws]


@dataclass(frozen=True, eq=False)
class _Controls:
    sides: Sides
    options: SparseProbeOptions
    draws: Sequence[Draw]

    def of(self, k: int, arm: Arm, rejections: list[SparseProbeRejection]) -> SparseProbeControl:
        return SparseProbeControl.of(k, list(self._fitted(k, arm, rejections)))

    def _fitted(
        self, k: int, arm: Arm, rejections: list[SparseProbeRejection]
    ) -> Iterator[tuple[Tensor, SparseProbeMetrics]]:
        for repeat, (order, positive) in enumerate(self.draws):
            support = order[:k].sort().values if arm == "random_coordinate" else order[:k]
            try:
                yield support, self.sides.fit(support, positive, self.options)[2]
            except ConvergenceError as error:
                rejections.append(SparseProbeRejection(arm, k, repeat, support, str(error)))
