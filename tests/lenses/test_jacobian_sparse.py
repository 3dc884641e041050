"""Sparse decompositions, occupancy and coordinate patches: against scipy, planted sums, and their laws."""

import math

import pytest
import torch
from scipy.optimize import nnls

from annotations import unchecked
from transformer_lens.lenses import (
    estimate_occupancy,
    get_sparse_decomposition,
    solve_coordinate_patch,
    solve_coordinate_patch_positions,
)
from transformer_lens.lenses.jacobian.sparse import nonnegative_least_squares

BOTH = ["nonnegative_orthogonal_matching_pursuit", "gradient_pursuit"]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ATOMS = normal(40, 12) * torch.linspace(0.5, 3, 40)[:, None]
X = 3 * normal(12, seed=1)


@pytest.mark.parametrize("seed", range(20))
def test_nonnegative_least_squares_as_in_scipy(seed):
    atoms, x = (
        normal(9, 12 if seed % 2 else 5, seed=seed).double(),
        normal(12 if seed % 2 else 5, seed=100 + seed).double(),
    )
    found = nonnegative_least_squares(atoms, x, torch.zeros(9, dtype=torch.float64))
    expected, distance = nnls(atoms.T.numpy(), x.numpy())
    assert math.isclose((x - found @ atoms).norm(), distance, abs_tol=1e-9)
    assert (found >= 0).all()
    if seed % 2:
        torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("algorithm", BOTH)
def test_a_sum_of_orthogonal_atoms_comes_back(algorithm):
    atoms = torch.linalg.qr(normal(12, 12))[0] * torch.arange(1.0, 13)[:, None]
    found = get_sparse_decomposition(2 * atoms[3] + 0.5 * atoms[7] - atoms[1], atoms, k=5, algorithm=algorithm)
    assert found.support.tolist() == [3, 7]
    torch.testing.assert_close(found.coordinates, torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(found.non_j_space_component, -atoms[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("algorithm", BOTH)
@pytest.mark.parametrize("k", [1, 4, 25])
def test_laws_of_a_decomposition(algorithm, k):
    found = get_sparse_decomposition(X, ATOMS, k, algorithm=algorithm)
    chosen = found.selected_support.tolist()
    assert set(found.support.tolist()) <= set(chosen)
    assert len(chosen) == len(set(chosen)) <= k
    assert (found.coordinates > 0).all()
    torch.testing.assert_close(found.coordinates @ ATOMS[found.support], found.reconstruction, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.j_space_component + found.non_j_space_component, X, atol=1e-5, rtol=1e-5)
    assert (ATOMS[chosen] @ found.non_j_space_component).abs().max() < 1e-4
    fewer = get_sparse_decomposition(X, ATOMS, max(1, k - 1), algorithm=algorithm)
    assert fewer.selected_support.tolist() == chosen[: len(fewer.selected_support)]


def test_least_squares_is_never_further_than_a_gradient_step():
    for seed in range(10):
        x = normal(12, seed=seed)
        exact, step = (get_sparse_decomposition(x, ATOMS, 2, algorithm=algorithm) for algorithm in BOTH)
        assert exact.selected_support.tolist() == step.selected_support.tolist()
        assert (x - exact.reconstruction).norm() <= (x - step.reconstruction).norm() + 1e-5


def test_where_no_atom_helps():
    for x in (torch.tensor([-1.0, -2.0]), torch.zeros(2)):
        found = get_sparse_decomposition(x, torch.eye(2), 2)
        assert found.support.tolist() == found.selected_support.tolist() == []
        assert torch.equal(found.non_j_space_component, x)
        assert not found.reconstruction.any()


def test_low_precision_is_computed_in_high():
    found = get_sparse_decomposition(X.bfloat16(), ATOMS.bfloat16(), 4)
    exact = get_sparse_decomposition(X.bfloat16().float(), ATOMS.bfloat16().float(), 4)
    assert found.support.tolist() == exact.support.tolist()
    torch.testing.assert_close(found.coordinates, exact.coordinates)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"algorithm": "foo"},
            "algorithm is one of .*, gradient_pursuit; got 'foo'",
        ),
        ({"k": 0}, "k is from 1 to the number of atoms, 40; got 0"),
        ({"k": 41}, "got 41"),
        ({"x": X[None]}, r"x has shape \[d_model\].* got \(1, 12\) and \(40, 12\)"),
        ({"x": X * math.nan}, "x has entries that are not finite"),
        ({"dictionary": torch.cat([ATOMS, ATOMS[:1] * math.inf])}, "dictionary has entries that are not finite"),
        ({"dictionary": torch.cat([ATOMS, ATOMS[:1] * 0])}, r"Atoms \[40\] of the dictionary have norm zero"),
    ],
)
def test_what_has_no_decomposition(change, said):
    with unchecked(), pytest.raises(ValueError, match=said):
        get_sparse_decomposition(**({"x": X, "dictionary": ATOMS, "k": 3} | change))


def test_occupancy_by_the_book():
    """Gains of greedy projections, written out slowly."""
    found = estimate_occupancy(X, ATOMS, max_atoms=6, num_control_dictionaries=3, seed=4)

    def gains(atoms):
        chosen, explained, left = [], [0.0], X.double()
        units = torch.nn.functional.normalize(atoms.double(), dim=-1)
        for _ in range(6):
            chosen.append(max(set(range(40)) - set(chosen), key=lambda atom: units[atom] @ left))
            inside = units[chosen].T @ torch.linalg.lstsq(units[chosen].T, X.double()).solution
            left = X.double() - inside
            explained.append(float(inside.square().sum() / X.double().square().sum()))
        return chosen, torch.tensor(explained).diff()

    generator = torch.Generator().manual_seed(4)
    control = torch.stack([gains(torch.randn(40, 12, generator=generator))[1] for _ in range(3)]).mean(0)
    chosen, real = gains(ATOMS)
    assert found.support.tolist() == chosen
    torch.testing.assert_close(found.marginal_captured_variance, real, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.control_captured_variance, control, atol=1e-5, rtol=1e-4)
    assert found.occupancy == int((real - control).cumsum(0).argmax()) + 1


def test_occupancy_counts_planted_atoms():
    atoms = normal(200, 64)
    for count in (1, 3, 6):
        assert estimate_occupancy(atoms[:count].sum(0), atoms, max_atoms=12).occupancy == count
    beyond = estimate_occupancy(X, ATOMS, max_atoms=14, num_control_dictionaries=1)
    assert beyond.marginal_captured_variance.sum().item() == pytest.approx(1)
    assert beyond.marginal_captured_variance[12:].tolist() == [0, 0]


def test_what_has_no_occupancy():
    with pytest.raises(ValueError, match="x is zero"):
        estimate_occupancy(X * 0, ATOMS)
    for options in ({"max_atoms": 41}, {"num_control_dictionaries": 0}):
        with pytest.raises(ValueError, match="max_atoms is from 1 to the number of atoms, 40"):
            estimate_occupancy(X, ATOMS, **options)


# --- coordinate patches -------------------------------------------------------------------------------------------

FOUND = get_sparse_decomposition(X, ATOMS, 5)
SOURCE, PRESENT = FOUND.support[0].item(), FOUND.support[2].item()
ABSENT = next(atom for atom in range(40) if atom not in FOUND.selected_support)


@pytest.mark.parametrize("mode", ["substitute", "swap"])
@pytest.mark.parametrize("target", [PRESENT, ABSENT])
def test_laws_of_a_patch(mode, target):
    nothing = solve_coordinate_patch(X, ATOMS, SOURCE, target, k=5, mode=mode, alpha=0.0)
    assert torch.equal(nothing.patched, X)
    patch = solve_coordinate_patch(X, ATOMS, SOURCE, target, k=5, mode=mode)
    half = solve_coordinate_patch(X, ATOMS, SOURCE, target, k=5, mode=mode, alpha=0.5)
    torch.testing.assert_close(half.delta, patch.delta / 2)
    torch.testing.assert_close(patch.patched - X, patch.delta, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(patch.reconstruction_after + patch.residual, patch.patched, atol=1e-5, rtol=1e-5)
    old, new = patch.coordinates_before, patch.coordinates_after
    assert new[patch.target_slot] == old[patch.source_slot]
    assert new[patch.source_slot] == (old[patch.target_slot] if mode == "swap" else 0)
    assert patch.nonedited_coordinate_max_delta == 0
    assert patch.residual_max_delta < 1e-5
    given = solve_coordinate_patch(X, ATOMS, SOURCE, target, decomposition=FOUND, mode=mode)
    assert torch.equal(given.patched, patch.patched)


def test_rows_are_patched_one_by_one():
    rows = torch.stack([X, 1.1 * X])[None]
    cache = {}
    patched, patches = solve_coordinate_patch_positions(
        rows.double(), ATOMS, [3, 9], SOURCE, ABSENT, layer=1, k=5, decomposition_cache=cache
    )
    assert patched.dtype == torch.float64
    assert cache.keys() == patches.keys() == {(1, 0, 3), (1, 0, 9)}
    torch.testing.assert_close(patched[0, 0].float(), solve_coordinate_patch(X, ATOMS, SOURCE, ABSENT, k=5).patched)
    cache[1, 0, 9] = cache[1, 0, 3]
    with pytest.raises(ValueError, match="The decomposition is of another vector"):
        solve_coordinate_patch_positions(rows, ATOMS, [3, 9], SOURCE, ABSENT, layer=1, decomposition_cache=cache)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"source_idx": ABSENT, "target_idx": SOURCE},
            f"source_idx={ABSENT} is not in .* active support",
        ),
        ({"target_idx": SOURCE}, "are two atoms; got"),
        ({"target_idx": 40}, "target_idx is an integer from 0 to 39; got 40"),
        ({"source_idx": True}, "source_idx is an integer"),
        ({"mode": "x"}, "mode is one of substitute, swap; got 'x'"),
        ({"alpha": math.inf}, "alpha is a finite number"),
        ({"x": X + 1, "decomposition": FOUND}, "The decomposition is of another vector"),
        ({"dictionary": ATOMS + 1, "decomposition": FOUND}, "The decomposition is of another dictionary"),
        ({"dictionary": ATOMS[:2], "source_idx": 0, "target_idx": 1, "decomposition": FOUND}, "the dictionary has 2"),
    ],
)
def test_what_is_no_patch(change, said):
    given = {"x": X, "dictionary": ATOMS, "source_idx": SOURCE, "target_idx": PRESENT, "k": 5} | change
    with unchecked(), pytest.raises(ValueError, match=said):
        solve_coordinate_patch(**given)


def test_what_a_patch_warns_of():
    near = torch.cat([ATOMS, ATOMS[SOURCE : SOURCE + 1] * 2 + 1e-2 * normal(1, 12)])
    with pytest.warns(UserWarning, match=r"nearly parallel \(cosine 1.0000\)"):
        patch = solve_coordinate_patch(X, near, SOURCE, 40, decomposition=FOUND)
    assert patch.basis_rank == 6
    same = torch.cat([ATOMS, ATOMS[SOURCE : SOURCE + 1] * -2])
    with (
        pytest.warns(UserWarning, match="nearly parallel"),
        pytest.warns(UserWarning, match="rank 5 of 6, condition number inf"),
    ):
        patch = solve_coordinate_patch(X, same, SOURCE, 40, decomposition=FOUND)
    assert (patch.basis_rank, patch.basis_condition_number) == (5, math.inf)
    with pytest.warns(UserWarning, match="With alpha=-1 a coordinate is below zero"):
        assert not solve_coordinate_patch(X, ATOMS, SOURCE, ABSENT, k=5, alpha=-1.0).coordinates_after_nonnegative
    with pytest.raises(ValueError, match=r"with a label for each position; got \(1, 2, 12\) and 1 labels"):
        solve_coordinate_patch_positions(X.expand(1, 2, 12), ATOMS, [0], SOURCE, ABSENT, layer=0)
