"""Subspaces and what they share: laws of the projection kernel, chance by drawing, heads by the definition."""

import pytest
import torch

from annotations import unchecked
from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.weights.head_affinity import attention_head_subspace_affinity
from transformer_lens.weights.matrix_index import WeightsError
from transformer_lens.weights.subspaces import (
    orthonormal_subspace,
    projection_kernel,
    random_projection_kernel_moments,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def projector(matrix):
    return matrix @ torch.linalg.pinv(matrix)


def test_the_basis_spans_the_columns():
    matrix = drawn(7, 2) @ drawn(2, 5, seed=1)  # rank 2
    found = orthonormal_subspace(matrix)
    torch.testing.assert_close(found.basis @ found.basis.T @ matrix, matrix)
    assert (found.rank, found.measured_rank, found.ambient_dim, found.input_shape) == (2, 2, 7, (7, 5))
    assert orthonormal_subspace(matrix, rank=1).rank == 1
    assert orthonormal_subspace(torch.diag(torch.tensor([1.0, 0.1])), rtol=0.5).rank == 1


def test_the_score_is_the_size_of_the_product_of_projections():
    a, b = drawn(9, 3), drawn(9, 4, seed=1)
    found = projection_kernel(orthonormal_subspace(a), orthonormal_subspace(b))
    expected = (projector(a) @ projector(b)).square().sum()
    torch.testing.assert_close(found.score, expected)
    torch.testing.assert_close(found.normalized, expected / 12**0.5)
    torch.testing.assert_close(found.angles.cos(), found.cosines)


def test_a_subspace_shares_all_with_itself_whatever_its_basis_and_nothing_with_its_complement():
    a = drawn(6, 3)
    same = projection_kernel(orthonormal_subspace(a), orthonormal_subspace(a @ drawn(3, 3, seed=2)))
    assert same.normalized.item() == pytest.approx(1.0)
    full = torch.linalg.qr(a, mode="complete").Q
    other = projection_kernel(orthonormal_subspace(a), orthonormal_subspace(full[:, 3:]))
    assert other.score.item() == pytest.approx(0.0, abs=1e-12)


def test_chance_agrees_with_drawing():
    n, r = 6, 2
    one, other = (torch.linalg.qr(drawn(20_000, n, r, seed=seed)).Q for seed in (3, 4))
    scores = (one.mT @ other).square().sum((-1, -2))
    chance = random_projection_kernel_moments(n, r)
    assert scores.mean().item() == pytest.approx(chance.mean, rel=0.02)
    assert scores.var().item() == pytest.approx(chance.variance, rel=0.05)


def test_what_cannot_be_is_refused():
    with pytest.raises(WeightsError, match=r"has rank 1 at rtol=.*; got rank=2"):
        orthonormal_subspace(torch.ones(3, 2), rank=2)
    with pytest.raises(WeightsError, match="has rank 0"):
        orthonormal_subspace(torch.zeros(3, 2))
    with pytest.raises(WeightsError, match="spaces of 3 and 4 dimensions"):
        projection_kernel(orthonormal_subspace(torch.eye(3)), orthonormal_subspace(torch.eye(4)))
    found = orthonormal_subspace(torch.eye(3))
    found.basis.mul_(2)
    with pytest.raises(WeightsError, match=r"columns of subspace_a\.basis are not orthonormal"):
        projection_kernel(found, orthonormal_subspace(torch.eye(3)))
    with pytest.raises(WeightsError, match="has rank 1 to 3; got 4"):
        random_projection_kernel_moments(3, 4)


@pytest.fixture(scope="module")
def model():
    cfg = {"n_layers": 3, "d_model": 12, "d_head": 3, "n_heads": 4, "n_ctx": 8, "d_vocab": 20, "attn_only": True}
    return HookedTransformer({**cfg, "seed": 0})


def test_heads_are_compared_by_what_they_write_and_read(model):
    found = attention_head_subspace_affinity(model, target_role="Q")
    for source, target in (((0, 1), (2, 3)), ((1, 0), (2, 0))):
        written, read = projector(model.W_O[source].T), projector(model.W_Q[target])
        expected = (written @ read).square().sum()
        torch.testing.assert_close(found.scores[source + target], expected, rtol=1e-4, atol=1e-5)
    assert not found.scores[1, :, :2].any()
    assert not found.valid_mask[2].any()
    assert (found.source_rank, found.target_rank) == (3, 3)


def test_the_best_pairs_come_first_and_are_valid(model):
    found = attention_head_subspace_affinity(model, target_role="V", rank=2)
    pairs = found.top_pairs(1000)
    assert len(pairs) == int(found.valid_mask.sum()) == 3 * 16
    assert [pair.score for pair in pairs] == sorted((pair.score for pair in pairs), reverse=True)
    assert pairs[0].score == found.scores.max().item()
    assert pairs[0].source.label.endswith(".O")
    assert all(pair.source.layer < pair.target.layer for pair in pairs)


def test_any_order_compares_a_head_with_itself(model):
    found = attention_head_subspace_affinity(model, source_role="K", target_role="K", layer_order="all")
    same = torch.stack([found.normalized[layer, head, layer, head] for layer in range(3) for head in range(4)])
    torch.testing.assert_close(same, torch.ones(12))
    with unchecked(), pytest.raises(WeightsError, match="A role is one of Q, K, V, O; got 'R'"):
        attention_head_subspace_affinity(model, target_role="R")
    with unchecked(), pytest.raises(WeightsError, match="layer_order is one of forward, all; got 'back'"):
        attention_head_subspace_affinity(model, target_role="Q", layer_order="back")


def test_both_hosts_agree():
    native, bridge = (
        HookedTransformer.from_pretrained_no_processing("demo"),
        TransformerBridge.boot_transformers("demo"),
    )
    ours, theirs = (attention_head_subspace_affinity(m, target_role="K", rank=4) for m in (native, bridge))
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-4, atol=1e-4)
