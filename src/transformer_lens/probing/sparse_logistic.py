"""k-sparse probes of two classes, each fitted to a certain optimum, and their controls over a range of k."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from transformer_lens.probing.binary_metrics import SparseProbeMetrics, binary_metrics
from transformer_lens.probing.directions import difference_in_means
from transformer_lens.probing.logistic import LogisticOptions, Optimum, fit_logistic
from transformer_lens.probing.splits import Split, stratified_split
from transformer_lens.probing.standard import Standard

Preprocess = Literal["none", "standardize"]
Labels = Bool[Tensor, "example"] | Integer[Tensor, "example"]


@dataclass(frozen=True, eq=False)
class SparseProbeResult:
    """A probe on k features, with how it was found and how sure its optimum is. Tensors are float64, on the CPU.

    Attributes:
        feature_scores: of every feature the positive class's mean less the negative one's, on the training side.
        selected_features: the k of the largest scores, by size.
        coefficients, intercept: the log-odds are those of the features, taken less mean and over scale.
        preprocess_mean, preprocess_scale: 0 and 1 unless features are standardised; constant features have scale 1.
        constant_features: which selected features never change on the training side.
        train_indices, test_indices: examples; negative ones first where they were drawn one by one.
        metrics: on the test side.
        positive_label, negative_label: as given.
        train_positive_count, train_negative_count, test_positive_count, test_negative_count: examples.
        preprocess, std_floor, class_weight, l2_strength, test_fraction, seed, k, max_iter, max_refinement_steps,
            decrement_tolerance: as given.
        objective, gradient_inf_norm, newton_decrement, refinement_steps, iterations, function_evaluations, stop_reason:
            of the fit, see `Optimum`.
    """

    feature_scores: Float[Tensor, "feature"]
    selected_features: Int[Tensor, "selected_feature"]
    coefficients: Float[Tensor, "selected_feature"]
    intercept: Float[Tensor, ""]
    preprocess_mean: Float[Tensor, "selected_feature"]
    preprocess_scale: Float[Tensor, "selected_feature"]
    constant_features: Bool[Tensor, "selected_feature"]
    train_indices: Int[Tensor, "train_example"]
    test_indices: Int[Tensor, "test_example"]
    metrics: SparseProbeMetrics
    positive_label: int
    negative_label: int
    train_positive_count: int
    train_negative_count: int
    test_positive_count: int
    test_negative_count: int
    preprocess: Preprocess
    std_floor: float
    class_weight: Literal["balanced"] | None
    l2_strength: float
    test_fraction: float
    seed: int
    k: int
    max_iter: int
    max_refinement_steps: int
    decrement_tolerance: float
    objective: float
    gradient_inf_norm: float
    newton_decrement: float
    refinement_steps: int
    iterations: int
    function_evaluations: int
    stop_reason: str


@dataclass(frozen=True)
class SparseProbeOptions:
    """How sparse probes of two classes are split, prepared and fitted.

    Attributes:
        test_fraction: of each class, on the test side.
        positive_label: the class that positive log-odds speak for.
        preprocess: "none", or "standardize" by mean and deviation of the training side.
        std_floor: the least deviation that a feature is divided by, unless it never changes.
        class_weight: "balanced": classes count equally however frequent; None: examples do.
        l2_strength: of the penalty on coefficients.
        seed: of the split, and of controls.
        max_iter, max_refinement_steps, decrement_tolerance: see `LogisticOptions`.
    """

    test_fraction: float = 0.3
    positive_label: int | bool = 1
    preprocess: Preprocess = "none"
    std_floor: float = 0.001
    class_weight: Literal["balanced"] | None = "balanced"
    l2_strength: float = 0.01
    seed: int = 0
    max_iter: int = 200
    max_refinement_steps: int = 25
    decrement_tolerance: float = 1e-12

    def __post_init__(self) -> None:
        if self.preprocess not in get_args(Preprocess):
            raise ValueError(f"preprocess is one of {', '.join(get_args(Preprocess))}; got {self.preprocess!r}.")
        if self.class_weight not in ("balanced", None):
            raise ValueError(f'class_weight is "balanced" or None; got {self.class_weight!r}.')
        if not 0 <= self.std_floor < float("inf"):
            raise ValueError(f"std_floor is 0 or more; got {self.std_floor}.")

    @property
    def logistic(self) -> LogisticOptions:
        """What is minimised, and how far."""
        return LogisticOptions(
            self.l2_strength, self.class_weight == "balanced", self.max_iter, self.max_refinement_steps,
            self.decrement_tolerance,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sides:
    """Examples of two classes, with which of them are fitted and which tested on.

    Attributes:
        features: float64, on the CPU.
        positive: the examples of the positive class.
        split: the two sides.
        labels: negative and positive, as they were given.
    """

    features: Float[Tensor, "example feature"]
    positive: Bool[Tensor, "example"]
    split: Split
    labels: tuple[int, int]

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "example feature"],
        labels: Labels,
        options: SparseProbeOptions,
        *,
        groups: Integer[Tensor, "example"] | None = None,
        split: Split | None = None,
    ) -> Sides:
        """The examples, checked and split: as given, or at random with each class on both sides.

        Raises:
            ValueError: features that are no finite matrix, labels that are not two classes, or no such split.
        """
        if features.ndim != 2 or labels.shape != features.shape[:1] or not features.is_floating_point():
            raise ValueError(
                f"features are numbers [example, feature] and labels [example]; got {features.dtype} "
                f"{tuple(features.shape)} and {tuple(labels.shape)}."
            )
        if not bool(features.isfinite().all()):
            raise ValueError("features hold numbers that are not finite: leave those examples out.")
        if labels.is_floating_point():
            raise ValueError(f"labels are integers or true and false; got {labels.dtype}.")
        known = [int(label) for label in labels.unique().tolist()]
        if len(known) != 2 or int(options.positive_label) not in known:
            raise ValueError(
                f"labels are of two classes, the positive one ({int(options.positive_label)}) among them; got {known}."
            )
        positive = (labels == options.positive_label).cpu()
        if split is None:
            split = stratified_split(positive, options.test_fraction, groups=groups, seed=options.seed)
        (negative_label,) = (label for label in known if label != int(options.positive_label))
        return cls(features.detach().double().cpu(), positive, split, (negative_label, int(options.positive_label)))

    def scores(self, positive: Bool[Tensor, "train"]) -> Float[Tensor, "feature"]:
        """The difference of the classes' means on the training side, under these labels."""
        return difference_in_means(self.features[self.split.train], positive)

    def chosen(self, scores: Float[Tensor, "feature"], k: int) -> Int[Tensor, "k"]:
        """The k features of the largest scores, by size; of equal ones the first.

        Raises:
            ValueError: there are not so many.
        """
        if not 1 <= k <= len(scores):
            raise ValueError(f"k is from 1 to {len(scores)}, the number of features; got {k}.")
        return scores.abs().argsort(descending=True, stable=True)[:k]

    def fit(
        self, support: Int[Tensor, "k"], positive: Bool[Tensor, "train"], options: SparseProbeOptions
    ) -> tuple[Standard, Optimum, SparseProbeMetrics]:
        """The probe on these features, fitted to these labels of the training side, tested on the true ones.

        Raises:
            ConvergenceError: the fit did not reach its optimum.
        """
        train, test = (self.features[side][:, support] for side in (self.split.train, self.split.test))
        standard = Standard.none(train) if options.preprocess == "none" else Standard.of(train, options.std_floor)
        found = fit_logistic(standard(train), positive, options.logistic)
        log_odds = standard(test) @ found.coefficients + found.intercept
        return standard, found, binary_metrics(log_odds, self.positive[self.split.test])


def sparse_probe(sides: Sides, k: int, options: SparseProbeOptions) -> SparseProbeResult:
    """The probe on the k features whose classes' means differ most on the training side.

    Raises:
        ConvergenceError: the fit did not reach its optimum.
        ValueError: there are not so many features.

    Example:
        >>> import torch
        >>> features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
        >>> options = SparseProbeOptions()
        >>> sides = Sides.of(features, features[:, 5] > 0, options)
        >>> sparse_probe(sides, 1, options).selected_features
        tensor([5])
    """
    positive = sides.positive[sides.split.train]
    scores = sides.scores(positive)
    support = sides.chosen(scores, k)
    standard, found, metrics = sides.fit(support, positive, options)
    n_test_positive = int(sides.positive[sides.split.test].sum())
    settings, optimum = asdict(options), vars(found)
    return SparseProbeResult(
        feature_scores=scores,
        selected_features=support,
        preprocess_mean=standard.mean,
        preprocess_scale=standard.scale,
        constant_features=standard.constant,
        train_indices=sides.split.train,
        test_indices=sides.split.test,
        metrics=metrics,
        negative_label=sides.labels[0],
        train_positive_count=int(positive.sum()),
        train_negative_count=int((~positive).sum()),
        test_positive_count=n_test_positive,
        test_negative_count=len(sides.split.test) - n_test_positive,
        k=k,
        **(settings | {"positive_label": sides.labels[1]}),
        **optimum,
    )


def fit_sparse_probe(
    features: Float[Tensor, "example feature"],
    labels: Labels,
    *,
    k: int,
    test_fraction: float = 0.3,
    positive_label: int | bool = 1,
    groups: Integer[Tensor, "example"] | None = None,
    preprocess: Preprocess = "none",
    std_floor: float = 0.001,
    class_weight: Literal["balanced"] | None = "balanced",
    l2_strength: float = 0.01,
    seed: int = 0,
    max_iter: int = 200,
    max_refinement_steps: int = 25,
    decrement_tolerance: float = 1e-12,
) -> SparseProbeResult:
    """The logistic probe of two classes on the k features whose means differ most, at a certain optimum.

    Split first; features are chosen and standardised on the training side alone. Unlike
    `transformer_lens.probing.fit_sparse_probe` it makes its own split, needs no scikit-learn, and says how near its
    optimum it is. Source: Gurnee et al. 2023, arXiv 2305.01610.

    Args:
        features: activations, finite.
        labels: two classes.
        k: how many features.
        groups: of each example; a group is on one side as a whole (see `stratified_split`).
        test_fraction, positive_label, preprocess, std_floor, class_weight, l2_strength, seed, max_iter,
            max_refinement_steps, decrement_tolerance: see `SparseProbeOptions`.

    Raises:
        ConvergenceError: the fit did not reach its optimum.
        ValueError: an argument that means nothing, or no split with both classes on both sides.

    Example:
        >>> import torch
        >>> features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
        >>> found = fit_sparse_probe(features, features[:, 5] > 0, k=1)
        >>> found.selected_features.tolist(), found.metrics.accuracy > 0.8, found.newton_decrement < 1e-12
        ([5], True, True)
    """
    options = SparseProbeOptions(
        test_fraction, positive_label, preprocess, std_floor, class_weight, l2_strength, seed, max_iter,
        max_refinement_steps, decrement_tolerance,
    )  # fmt: skip
    return sparse_probe(Sides.of(features, labels, options, groups=groups), k, options)
