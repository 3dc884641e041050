"""Splits that leak nothing, and labels that mean nothing: what makes a probe's accuracy say something."""

from __future__ import annotations

import math
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
    _check_fraction(test_fraction)
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(max(round(test_fraction * len(kinds)), 1), len(kinds) - 1)
    tested = {kinds[index] for index in order[:count]}
    side = torch.tensor([name in tested for name in names])
    return Split((~side).nonzero()[:, 0], side.nonzero()[:, 0])


def stratified_split(
    labels: Shaped[Tensor, "example"], test_fraction: float = 0.3, *, groups: Groups | None = None, seed: int = 0
) -> Split:
    """A random split with the same share of each class on the test side; with groups, no group is on both sides.

    Without groups the examples of each class, the smallest label first, are put in random order, and the first are
    tested on. With groups, whole groups in random order are held out where that brings the shares nearer to the wanted
    one (by squares), so it is met only about.

    Args:
        labels: the class of each example.
        test_fraction: of each class that is tested on, rounded up; but not all.
        groups: of each example, as for `grouped_split`; a group may hold several classes.
        seed: of the order.

    Raises:
        ValueError: a class of one example or one group, or a fraction outside 0 to 1.

    Example:
        >>> split = stratified_split(torch.tensor([0, 0, 0, 0, 1, 1]), test_fraction=0.5)
        >>> len(split.test), split.test[:2].max() < 4, split.test[2] >= 4
        (3, tensor(True), tensor(True))
    """
    _check_fraction(test_fraction)
    generator = torch.Generator().manual_seed(seed)
    if groups is not None:
        return _stratified_groups(labels, groups, test_fraction, generator)
    test, train = [], []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        if len(rows) < 2:
            raise ValueError(f"Each class needs two examples, one for each side; class {label} has {len(rows)}.")
        rows = rows[torch.randperm(len(rows), generator=generator)]
        count = _held_out(len(rows), test_fraction)
        test.append(rows[:count])
        train.append(rows[count:])
    return Split(torch.cat(train), torch.cat(test))


def _stratified_groups(labels: Tensor, groups: Groups, fraction: float, generator: torch.Generator) -> Split:
    names = _hashable(groups)
    if len(names) != len(labels):
        raise ValueError(f"There are {len(names)} groups and {len(labels)} labels.")
    kinds = groups.unique().tolist() if isinstance(groups, Tensor) else list(dict.fromkeys(names))
    classes, place = labels.unique(return_inverse=True)
    member = torch.tensor([kinds.index(name) for name in names])
    counts = torch.zeros(len(kinds), len(classes)).index_put_((member, place), torch.tensor(1.0), accumulate=True)
    for label, held in zip(classes.tolist(), (counts > 0).sum(0).tolist(), strict=True):
        if held < 2:
            raise ValueError(f"Each class needs two groups, one for each side; class {label} is in {held}.")
    target = torch.tensor([_held_out(int(size), fraction) for size in counts.sum(0)])

    def missed(tested: list[int]) -> float:
        return float((((counts[tested].sum(0) - target) / counts.sum(0)) ** 2).sum())

    order, tested = torch.randperm(len(kinds), generator=generator).tolist(), list[int]()
    for kind in order:
        if missed([*tested, kind]) < missed(tested):
            tested.append(kind)
    for column in range(len(classes)):  # a class that is on one side alone changes places by the group that fits best
        has = [kind for kind in order if counts[kind, column]]
        if not any(kind in tested for kind in has):
            tested.append(min(has, key=lambda kind: missed([*tested, kind])))
        if all(kind in tested for kind in has):
            tested.remove(min(has, key=lambda kind: missed([one for one in tested if one != kind])))
    side = torch.isin(member, torch.tensor(tested))
    for name, rows in (("train", ~side), ("test", side)):
        if len(labels[rows].unique()) < len(classes):
            raise ValueError(f"No choice of whole groups was found that has every class to {name} on: split groups up.")
    return Split((~side).nonzero()[:, 0], side.nonzero()[:, 0])


def _held_out(count: int, fraction: float) -> int:
    """How many of so many are tested on: rounded up, but not all."""
    return min(math.ceil(fraction * count), count - 1)


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ValueError(f"test_fraction is between 0 and 1; got {fraction}.")


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
