"""Linear probes: logistic regression for classes, ridge regression for numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from transformer_lens.extras import import_extra
from transformer_lens.probing.splits import Split
from transformer_lens.probing.standard import Standard

Kind = Literal["logistic", "ridge"]


@dataclass(frozen=True)
class ProbeOptions:
    """How a probe is fitted.

    Attributes:
        kind: "logistic" (labels are classes; scored by accuracy) or "ridge" (labels are numbers; scored by R²).
        strength: of the L2 penalty on standardised features: scikit-learn's alpha for ridge, 1 / C for logistic.
        balanced: weigh classes as if they were equally frequent (logistic alone).
        max_iter: steps of the logistic fit.

    Example:
        >>> ProbeOptions(kind="ridge", balanced=True)
        Traceback (most recent call last):
        ValueError: balanced is about classes and has no effect on ridge; leave it out.
    """

    kind: Kind = "logistic"
    strength: float = 1.0
    balanced: bool = False
    max_iter: int = 1000

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is one of {', '.join(get_args(Kind))}; got {self.kind!r}.")
        if self.kind == "ridge" and self.balanced:
            raise ValueError("balanced is about classes and has no effect on ridge; leave it out.")
        if self.strength <= 0 or self.max_iter < 1:
            raise ValueError(f"strength and max_iter are positive; got {self.strength} and {self.max_iter}.")

    def estimator(self) -> Any:
        """The scikit-learn estimator.

        Raises:
            MissingExtraError: scikit-learn is not installed.
        """
        models = import_extra("sklearn.linear_model", "A probe", "transformer-lens[probing]")
        if self.kind == "ridge":
            return models.Ridge(alpha=self.strength)
        weight = "balanced" if self.balanced else None
        return models.LogisticRegression(C=1 / self.strength, class_weight=weight, max_iter=self.max_iter)


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe, in the units of the features: scores are features · weight + bias.

    Attributes:
        weight: one row for each class (one row for two classes, towards the second; one for ridge).
        bias: one number for each row.
        classes: the labels that rows stand for; empty for ridge.
        train_score, test_score: accuracy (logistic) or R² (ridge) on either side of the split.
    """

    weight: Float[Tensor, "row feature"]
    bias: Float[Tensor, "row"]
    classes: list[int]
    train_score: float
    test_score: float

    def scores(self, features: Float[Tensor, "*example feature"]) -> Float[Tensor, "*example row"]:
        """What the probe says of features: log-odds for classes, a number for ridge."""
        said: Tensor = features.to(self.weight) @ self.weight.T + self.bias
        return said

    def predict(self, features: Float[Tensor, "*example feature"]) -> Shaped[Tensor, "*example"]:
        """The likeliest class of each example, or for ridge its number."""
        said = self.scores(features)
        if not self.classes:
            return said[..., 0]
        chosen: Tensor = (said[..., 0] > 0).long() if len(self.classes) == 2 else said.argmax(-1)
        predicted: Tensor = torch.tensor(self.classes)[chosen]
        return predicted

    @property
    def direction(self) -> Float[Tensor, "*row feature"]:
        """The weight rows at unit length; one vector where there is one row."""
        units: Tensor = self.weight / self.weight.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return units[0] if len(units) == 1 else units


def fit_probe(
    features: Float[Tensor, "example feature"],
    labels: Shaped[Tensor, "example"],
    split: Split,
    *,
    options: ProbeOptions | None = None,
) -> LinearProbe:
    """The probe fitted on one side of a split and scored on both.

    Features are standardised by the mean and deviation of the training side alone, so nothing of the other leaks.

    Args:
        features: activations.
        labels: integers for logistic, numbers for ridge.
        split: which examples are fitted.
        options: how; None: as ProbeOptions says.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ValueError: lengths differ, labels of the wrong kind, or only one class to train on.

    Example:
        >>> features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        >>> labels = (features[:, 1] > 0).long()
        >>> probe = fit_probe(features, labels, Split(torch.arange(30), torch.arange(30, 40)))
        >>> probe.direction.abs().argmax().item(), probe.test_score > 0.8
        (1, True)
    """
    options = ProbeOptions() if options is None else options
    _check(features, labels, split, options)
    inputs = features.detach().double().cpu()
    train = inputs[split.train]
    standard = Standard.of(train)
    fitted = options.estimator().fit(standard(train).numpy(), labels[split.train].cpu().numpy())
    weight = torch.as_tensor(fitted.coef_).reshape(-1, inputs.shape[1]) / standard.scale
    bias = torch.as_tensor(fitted.intercept_).reshape(-1) - weight @ standard.mean
    classes = fitted.classes_.tolist() if options.kind == "logistic" else []
    probe = LinearProbe(weight.float(), bias.float(), classes, 0.0, 0.0)
    scored = [_score(probe, features[side], labels[side]) for side in (split.train, split.test)]
    return LinearProbe(probe.weight, probe.bias, classes, *scored)


def _score(probe: LinearProbe, features: Tensor, labels: Tensor) -> float:
    said, truth = probe.predict(features.detach().cpu()), labels.cpu()
    if probe.classes:
        return (said == truth).double().mean().item()
    truth = truth.double()
    return 1 - ((said - truth) ** 2).sum().item() / ((truth - truth.mean()) ** 2).sum().item()


def _check(features: Tensor, labels: Tensor, split: Split, options: ProbeOptions) -> None:
    if features.ndim != 2 or len(features) != len(labels) or labels.ndim != 1:
        raise ValueError(
            f"features are [example, feature] and labels [example]; got {tuple(features.shape)}, {tuple(labels.shape)}."
        )
    if (options.kind == "ridge") != labels.is_floating_point():
        wanted = "numbers" if options.kind == "ridge" else "integer classes"
        raise ValueError(f"{options.kind} takes {wanted} as labels; got {labels.dtype}.")
    if options.kind == "logistic" and len(classes := labels[split.train].unique()) < 2:
        raise ValueError(f"The training side has one class alone ({classes.tolist()}): split by other groups.")
