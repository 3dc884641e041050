"""A probe at every layer, with its control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens import viz
from transformer_lens.probing.linear import LinearProbe, ProbeOptions, fit_probe
from transformer_lens.probing.splits import Groups, Split, control_labels, grouped_split


@dataclass(frozen=True)
class ProbeStudy:
    """How well each layer's activations tell a label, and how much of that is the probe's own memory.

    Attributes:
        accuracy: of the probe, on the test side.
        control: accuracy on random labels of types, the mean over several draws; None: no types were given.
        chance: how often the most frequent label of the training side is right on the test side.
        probes: one for each layer.
        split: which examples were tested on.
    """

    accuracy: Float[Tensor, "layer"]
    control: Float[Tensor, "layer"] | None
    chance: float
    probes: list[LinearProbe]
    split: Split

    @property
    def selectivity(self) -> Float[Tensor, "layer"] | None:
        """Accuracy less that of the control task."""
        return None if self.control is None else self.accuracy - self.control

    def table(self) -> list[dict[str, Any]]:
        """One dict for each layer (layer, accuracy, control, selectivity), for pandas or JSON."""
        rows = [{"layer": layer, "accuracy": value} for layer, value in enumerate(self.accuracy.tolist())]
        if self.control is not None and self.selectivity is not None:
            for row, control, selectivity in zip(rows, self.control.tolist(), self.selectivity.tolist(), strict=True):
                row |= {"control": control, "selectivity": selectivity}
        return rows

    def picture(self, title: str = "Probe accuracy by layer") -> viz.Picture:
        """Accuracy, control and chance by layer."""
        lines = {"accuracy": self.accuracy}
        if self.control is not None and self.selectivity is not None:
            lines |= {"control task": self.control, "selectivity": self.selectivity}
        lines["most frequent label"] = torch.full_like(self.accuracy, self.chance)
        layers = [str(layer) for layer in range(len(self.accuracy))]
        return viz.line_plot(lines, x=layers, title=title, x_axis="layer", y_axis="accuracy")

    def _repr_html_(self) -> str:
        return self.picture().html()


def probe_layers(
    features: Float[Tensor, "layer example feature"],
    labels: Int[Tensor, "example"],
    groups: Groups,
    *,
    types: Groups | None = None,
    test_fraction: float = 0.3,
    seed: int = 0,
    draws: int = 3,
    options: ProbeOptions | None = None,
) -> ProbeStudy:
    """A logistic probe at each layer on a split by group, and with `types` its control task on the same split.

    Args:
        features: `layer_activations(…)`.
        labels: classes.
        groups: what examples share that must not be on both sides: the template, the entity.
        types: what control labels are attached to, the word or entity; each must occur on both sides, or the control
            task could not be learned (split by template, control by entity).
        test_fraction: of groups that are tested on.
        seed: of the split and of the control labels.
        draws: of control labels.
        options: how probes are fitted.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ValueError: features of other axes; a type that is on the test side alone.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(60) % 2
        >>> features = torch.randn(2, 60, 4, generator=generator)
        >>> features[1, :, 0] += 6.0 * labels
        >>> study = probe_layers(features, labels, groups=torch.arange(60) // 6)
        >>> study.accuracy[1] > 0.95, study.selectivity
        (tensor(True), None)
    """
    if features.ndim != 3:
        raise ValueError(f"features are [layer, example, feature]; got {tuple(features.shape)}.")
    split = grouped_split(groups, test_fraction, seed)
    probes = [fit_probe(layer, labels, split, options=options) for layer in features]
    control = None
    if types is not None:
        _check_types(types, split)
        drawn = [control_labels(types, labels, seed + draw) for draw in range(draws)]
        scores = [
            [fit_probe(layer, random, split, options=options).test_score for layer in features] for random in drawn
        ]
        control = torch.tensor(scores).mean(0)
    common = labels[split.train].mode().values
    chance = (labels[split.test] == common).float().mean().item()
    return ProbeStudy(torch.tensor([probe.test_score for probe in probes]), control, chance, probes, split)


def _check_types(types: Groups, split: Split) -> None:
    names = types.tolist() if isinstance(types, Tensor) else list(types)
    trained = {names[index] for index in split.train.tolist()}
    alone = {names[index] for index in split.test.tolist()} - trained
    if alone:
        raise ValueError(
            f"{len(alone)} types are on the test side alone ({next(iter(alone))!r} for one), so the control task "
            "cannot be learned and selectivity would say nothing. Split by something else (the template) than types "
            "(the entity), or leave types out."
        )
