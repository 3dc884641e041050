"""Splits that leak nothing, and control labels that follow types."""

import pytest
import torch

from annotations import unchecked
from transformer_lens.probing import Split, control_labels, grouped_split


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides_and_no_example_is_lost(seed):
    groups = [f"template {number % 7}" for number in range(40)]
    split = grouped_split(groups, test_fraction=0.3, seed=seed)
    assert sorted([*split.train.tolist(), *split.test.tolist()]) == list(range(40))
    assert not {groups[index] for index in split.train} & {groups[index] for index in split.test}
    assert len({groups[index] for index in split.test}) == 2
    again = grouped_split(torch.tensor([number % 7 for number in range(40)]), test_fraction=0.3, seed=seed)
    assert torch.equal(again.test, split.test)


def test_seeds_differ_and_a_side_is_never_empty():
    assert len({tuple(grouped_split(range(10), seed=seed).test.tolist()) for seed in range(8)}) > 4
    assert len(grouped_split(["a", "b"], test_fraction=0.01).test) == 1
    assert len(grouped_split(["a", "b"], test_fraction=0.99).train) == 1


def test_control_labels_follow_types_and_keep_frequencies():
    types = [f"word {number % 20}" for number in range(100)]
    labels = torch.tensor([int(number % 20 < 5) for number in range(100)])
    drawn = control_labels(types, labels, seed=1)
    by_type = {name: {int(drawn[i]) for i in range(100) if types[i] == name} for name in set(types)}
    assert all(len(found) == 1 for found in by_type.values())
    assert drawn.sum() == labels.sum()
    assert not torch.equal(drawn, labels)
    assert not torch.equal(drawn, control_labels(types, labels, seed=2))


def test_what_is_refused():
    with unchecked(), pytest.raises(ValueError, match="at least two groups; all 3 examples"):
        grouped_split(["a", "a", "a"])
    with unchecked(), pytest.raises(ValueError, match="between 0 and 1; got 1"):
        grouped_split(["a", "b"], test_fraction=1)
    with unchecked(), pytest.raises(ValueError, match="1 examples are on both sides, example 2"):
        Split(torch.tensor([0, 1, 2]), torch.tensor([2, 3]))
    with unchecked(), pytest.raises(ValueError, match="0 to test"):
        Split(torch.tensor([0, 1, 2]), torch.tensor([], dtype=torch.long))
    with unchecked(), pytest.raises(ValueError, match="2 types and 3 labels"):
        control_labels(["a", "b"], torch.tensor([0, 1, 0]))
