"""Splits that leak nothing, and labels that mean nothing: what makes a probe's accuracy say something."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

Groups = Sequence[Hashable] | Shaped[Tensor, "example"]


@dataclass(frozen=True)
class Split:
    """Which examples a probe is fitted on, and which it is judged on.

    Attributes:
        train: indices of examples.
        test: indices of others.
    """

    train: Int[Tensor, "train"]
    test: Int[Tensor, "test"]

    def __post_init__(self) -> None:
        if not len(self.train) or not len(self.test):
            raise ValueError(f"Both sides need examples; got {len(self.train)} to train and {len(self.test)} to test.")
        if shared := set(self.train.tolist()) & set(self.test.tolist()):
            raise ValueError(f"{len(shared)} examples are on both sides, example {min(shared)} for one.")


def grouped_split(groups: Groups, test_fraction: float = 0.3, seed: int = 0) -> Split:
    """A random split in which no group is on both sides.

    Examples that share a template or an entity share more than the label: with both sides holding some of them a probe
    can know the answer without the feature. Put what they share in `groups`.

    Args:
        groups: of each example, anything hashable; or a tensor of numbers.
        test_fraction: of groups that are tested on, at least one and not all.
        seed: of the choice.

    Raises:
        ValueError: fewer than two groups, or a fraction outside 0 to 1.

    Example:
        >>> split = grouped_split(["a", "a", "b", "b", "c"], test_fraction=0.4)
        >>> len(split.train) + len(split.test)
        5
    """
    names = _hashable(groups)
    kinds = list(dict.fromkeys(names))
    if len(kinds) < 2:
        raise ValueError(f"A split by group needs at least two groups; all {len(names)} examples are of {kinds}.")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is between 0 and 1; got {test_fraction}.")
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(max(round(test_fraction * len(kinds)), 1), len(kinds) - 1)
    tested = {kinds[index] for index in order[:count]}
    side = torch.tensor([name in tested for name in names])
    return Split((~side).nonzero()[:, 0], side.nonzero()[:, 0])


def control_labels(types: Groups, labels: Int[Tensor, "example"], seed: int = 0) -> Int[Tensor, "example"]:
    """Random labels, the same for all examples of one type, and as frequent over types as the real ones.

    A probe that learns these learns types by heart; what it does better on the real labels is its selectivity. Source:
    Hewitt and Liang, "Designing and Interpreting Probes with Control Tasks", 2019, arXiv 1909.03368.

    Args:
        types: what the control is attached to (the word, the entity) for each example.
        labels: the real ones.
        seed: of the draw.

    Raises:
        ValueError: types and labels differ in length.

    Example:
        >>> control_labels(["a", "b", "a", "c"], torch.tensor([0, 1, 0, 1]))[[0, 2]].unique().numel()
        1
    """
    names = _hashable(types)
    if len(names) != len(labels):
        raise ValueError(f"There are {len(names)} types and {len(labels)} labels.")
    first = {name: int(labels[index]) for index, name in reversed(list(enumerate(names)))}
    drawn = list(first.values())
    order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(seed)).tolist()
    shuffled = dict(zip(first, (drawn[index] for index in order), strict=True))
    return torch.tensor([shuffled[name] for name in names])


def _hashable(groups: Groups) -> list[Hashable]:
    return groups.tolist() if isinstance(groups, Tensor) else list(groups)
