"""Splits that leak nothing, and control labels that follow types."""

import pytest
import torch

from annotations import unchecked
from transformer_lens.probing import Split, control_labels, grouped_split, stratified_split


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


def test_each_class_has_its_share_on_the_test_side():
    labels = torch.tensor([5] * 28 + [7] * 33)
    split = stratified_split(labels, 0.3, seed=3)
    assert labels[split.test].tolist() == [5] * 9 + [7] * 10  # rounded up
    assert sorted([*split.train.tolist(), *split.test.tolist()]) == list(range(61))
    assert stratified_split(torch.tensor([0, 0, 1, 1]), 0.99).train.numel() == 2
    assert not torch.equal(split.test, stratified_split(labels, 0.3, seed=4).test)


@pytest.mark.parametrize("seed", range(20))
def test_whole_groups_are_held_out_with_each_class_on_both_sides(seed):
    drawn = torch.Generator().manual_seed(seed)
    groups = torch.randint(9, (80,), generator=drawn)
    labels = torch.randint(2, (80,), generator=drawn)
    split = stratified_split(labels, 0.3, groups=groups, seed=seed)
    assert not set(groups[split.train].tolist()) & set(groups[split.test].tolist())
    for label in (0, 1):
        share = (labels[split.test] == label).sum() / (labels == label).sum()
        assert 0.1 < share < 0.5
    # Groups of one class each: without looking at classes, a side would often lack one.
    pure = stratified_split(torch.arange(8) // 4, 0.1, groups=torch.arange(8) // 2, seed=seed)
    assert (torch.arange(8) // 4)[pure.test].unique().tolist() == [0, 1]
    named = stratified_split(labels, 0.3, groups=[f"template {group}" for group in groups.tolist()], seed=seed)
    assert len(named.test) < 80


def test_what_is_refused():
    with unchecked(), pytest.raises(ValueError, match="class 1 has 1"):
        stratified_split(torch.tensor([0, 0, 1]))
    with unchecked(), pytest.raises(ValueError, match="class 1 is in 1"):
        stratified_split(torch.tensor([0, 0, 1, 1]), groups=["a", "b", "b", "b"])
    with unchecked(), pytest.raises(ValueError, match="between 0 and 1; got 1"):
        stratified_split(torch.tensor([0, 0, 1, 1]), 1)
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
