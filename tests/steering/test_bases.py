"""Subspaces to exchange: what they span, and that controls are drawn as they say."""

import pytest
import torch

from transformer_lens.steering.bases import (
    LearnedSubspace,
    arbitrary_targets,
    mean_difference_basis,
    neuron_basis,
    probe_basis,
    random_basis,
    random_neuron_basis,
)


def spans(basis, vectors):
    """Whether the columns are orthonormal and hold these rows."""
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors @ basis @ basis.T, vectors, atol=1e-5, rtol=1e-4)
    return True


def test_a_random_basis_is_its_seeds():
    assert spans(random_basis(6, 2, seed=0), torch.zeros(1, 6))
    assert torch.equal(random_basis(6, 2, seed=0), random_basis(6, 2, seed=0))
    assert not torch.equal(random_basis(6, 2, seed=0), random_basis(6, 2, seed=1))
    with pytest.raises(ValueError, match=r"rank is from 1 to 6, .*; got 7"):
        random_basis(6, 7, seed=0)


def test_differences_of_means_are_spanned_and_nothing_else():
    labels = ["a", "b", "c"] * 5
    codes = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    basis = mean_difference_basis(codes.repeat(5, 1), labels)
    assert basis.shape == (8, 2)
    assert spans(basis, codes[:1] - codes[1:])
    with pytest.raises(ValueError, match="no direction in the means of 1 classes"):
        mean_difference_basis(torch.ones(2, 3), ["a", "a"])
    with pytest.raises(ValueError, match="2 activations and 1 labels"):
        mean_difference_basis(torch.ones(2, 3), ["a"])


def test_a_probes_rows_are_spanned_once_each():
    weights = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    basis = probe_basis(torch.cat([weights, weights.sum(0, keepdim=True)]))
    assert basis.shape == (5, 2)
    assert spans(basis, weights)


def test_neurons_are_columns_of_one():
    assert torch.equal(neuron_basis(4, torch.tensor([3, 1])), torch.eye(4)[:, [3, 1]])
    drawn = random_neuron_basis(6, 3, seed=0, exclude=[1, 2, 4])
    assert sorted(drawn.argmax(0).tolist()) == [0, 3, 5]
    with pytest.raises(ValueError, match=r"from 0 to 3, one at least; got \[1, 1\]"):
        neuron_basis(4, [1, 1])
    with pytest.raises(ValueError, match=r"k is from 1 to 2, .*; got 3"):
        random_neuron_basis(4, 3, seed=0, exclude=[0, 1])


def test_arbitrary_targets_are_the_same_for_one_key_and_all_classes_occur():
    keys = [f"word {number % 50}" for number in range(100)]
    targets = arbitrary_targets(keys, 4, seed=0)
    assert torch.equal(targets[:50], targets[50:])
    assert set(targets.tolist()) == {0, 1, 2, 3}
    assert not torch.equal(targets, arbitrary_targets(keys, 4, seed=1))


def test_a_learned_subspace_stays_orthonormal():
    before = torch.random.get_rng_state()
    subspace = LearnedSubspace(6, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    optimizer = torch.optim.SGD(subspace.parameters(), lr=1.0)
    first = subspace.basis.detach().clone()
    subspace.basis[0].sum().backward()
    optimizer.step()
    assert not torch.allclose(subspace.basis, first)
    assert spans(subspace.basis.detach(), torch.zeros(1, 6))
