"""A vector as a sparse sum of dictionary rows with coefficients that are not negative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

Algorithm = Literal["nonnegative_orthogonal_matching_pursuit", "gradient_pursuit"]
ALGORITHM: Algorithm = "nonnegative_orthogonal_matching_pursuit"
K = 25
CORRELATED = float(torch.finfo(torch.float32).eps) ** 0.5
"""An atom is selected while its cosine with what is left, times the share that is left, is above this."""
ACTIVE = float(torch.finfo(torch.float64).eps) ** 0.5
"""A coefficient counts above this share of the greatest; singular values and gradients are zero below it."""


@dataclass(frozen=True, eq=False)
class JSpaceDecomposition:
    """A vector split into what a few dictionary atoms explain, and the rest. Vectors are float32, indices on CPU.

    Attributes:
        support: atoms with a coordinate above zero, in the order in which they were selected.
        coordinates: theirs.
        selected_support: all atoms selected, those whose coordinate came to zero too.
        reconstruction: the sum of coordinates times atoms.
        j_space_component: the orthogonal projection on the span of selected_support; the reconstruction itself where
            the fit is exact and no coordinate came to zero.
        non_j_space_component: the vector less that projection.
    """

    support: Int[Tensor, "active"]
    coordinates: Float[Tensor, "active"]
    selected_support: Int[Tensor, "selected"]
    reconstruction: Float[Tensor, "d_model"]
    j_space_component: Float[Tensor, "d_model"]
    non_j_space_component: Float[Tensor, "d_model"]


def get_sparse_decomposition(
    x: Tensor, dictionary: Tensor, k: int = K, *, algorithm: str = ALGORITHM
) -> JSpaceDecomposition:
    """A vector as a sum of at most k dictionary atoms, with coordinates that are not negative.

    Atoms are selected one by one: the one whose direction has the greatest dot product with what is left. With
    "nonnegative_orthogonal_matching_pursuit" all coordinates are then solved for anew (non-negative least squares);
    with "gradient_pursuit" they take one step along the gradient, of the length that is best without the constraint,
    and are cut at zero (Blumensath and Davies, "Gradient Pursuits", 2008). Selection ends early when no atom has a
    positive dot product worth the name (3.5e-4 of the vector's norm). Computed in float64.

    Args:
        x: the vector: [d_model].
        dictionary: one atom in each row: [atom, d_model].
        k: how many atoms at most.
        algorithm: how coordinates are found.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, an atom of zero norm, or k out of range.
        RuntimeError: the least squares did not converge.

    Example:
        >>> atoms = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        >>> found = get_sparse_decomposition(torch.tensor([1.0, 6.0, -5.0]), atoms, k=3)
        >>> found.support.tolist(), found.coordinates.tolist()
        ([1, 0], [3.0, 1.0])
    """
    if algorithm not in get_args(Algorithm):
        raise ValueError(f"algorithm is one of {', '.join(get_args(Algorithm))}; got {algorithm!r}.")
    dictionary, norms = checked(x, dictionary)
    if not 1 <= k <= len(dictionary):
        raise ValueError(f"k is from 1 to the number of atoms, {len(dictionary)}; got {k}.")
    target, fit = x.detach().double(), FITS[algorithm]
    chosen: list[int] = []
    coordinates = target.new_zeros(0)
    left = target
    while len(chosen) < k:
        best, value = most_correlated(dictionary, norms, left, chosen)
        if value <= CORRELATED * float(target.norm()):
            break
        chosen.append(best)
        atoms = dictionary[chosen].double()
        coordinates = fit(atoms, target, torch.cat([coordinates, coordinates.new_zeros(1)]))
        left = target - coordinates @ atoms
    return decomposition(x, dictionary, chosen, coordinates)


def most_correlated(
    dictionary: Float[Tensor, "atom d_model"], norms: Float[Tensor, "atom"], left: Tensor, chosen: list[int]
) -> tuple[int, float]:
    """The atom not chosen yet whose direction has the greatest dot product with a vector, and that product."""
    products = (dictionary @ left.to(dictionary)).double() / norms
    products[chosen] = -torch.inf
    best = int(products.argmax())
    return best, float(products[best])


def decomposition(
    x: Tensor, dictionary: Tensor, chosen: list[int], coordinates: Float[Tensor, "selected"]
) -> JSpaceDecomposition:
    """The result for atoms that were selected, with their coordinates."""
    atoms, target = dictionary[chosen].double(), x.detach().double()
    counts = active(coordinates)
    reconstruction = coordinates[counts] @ atoms[counts]
    inside = projected(atoms, target)
    selected = torch.tensor(chosen, dtype=torch.long)
    return JSpaceDecomposition(
        support=selected[counts.cpu()],
        coordinates=coordinates[counts].float(),
        selected_support=selected,
        reconstruction=reconstruction.float(),
        j_space_component=inside.float(),
        non_j_space_component=(target - inside).float(),
    )


def active(coordinates: Float[Tensor, "atom"]) -> Tensor:
    """Which coordinates are above zero by more than rounding."""
    return coordinates > ACTIVE * coordinates.amax() if len(coordinates) else coordinates.bool()


def projected(atoms: Float[Tensor, "atom d_model"], x: Float[Tensor, "d_model"]) -> Float[Tensor, "d_model"]:
    """The orthogonal projection of a vector on the span of some atoms."""
    if not len(atoms):
        return torch.zeros_like(x)
    _, values, directions = torch.linalg.svd(unit_rows(atoms), full_matrices=False)
    basis = directions[values > ACTIVE * values[0]]
    inside: Tensor = basis.T @ (basis @ x)
    return inside


def unit_rows(atoms: Float[Tensor, "*atom d_model"]) -> Float[Tensor, "*atom d_model"]:
    """The atoms at norm 1."""
    unit: Tensor = atoms / atoms.norm(dim=-1, keepdim=True)
    return unit


def nonnegative_least_squares(
    atoms: Float[Tensor, "atom d_model"], x: Float[Tensor, "d_model"], start: Float[Tensor, "atom"]
) -> Float[Tensor, "atom"]:
    """The coefficients ≥ 0 whose sum of atoms is nearest to a vector (Lawson and Hanson, 1974, chapter 23).

    The start is not used: from zero, the solution does not depend on what came before.

    Raises:
        RuntimeError: it did not converge.
    """
    norms = atoms.norm(dim=-1)
    enough = ACTIVE * norms * x.norm()
    free = torch.zeros_like(start, dtype=torch.bool)
    found = torch.zeros_like(start)
    for _ in range(10 * (len(atoms) + 1)):
        slope = (atoms @ (x - found @ atoms)).masked_fill(free, -torch.inf)
        if not (slope > enough).any():
            return found
        free = free.clone()
        free[slope.argmax()] = True
        found, free = _descend(atoms, x, found, free)
    raise RuntimeError(
        f"Non-negative least squares over {len(atoms)} atoms did not converge; are some of them parallel?"
    )


def _descend(atoms: Tensor, x: Tensor, found: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients moved to the least squares of the free ones, and which are free still: not those that reach zero."""
    while True:
        goal = torch.zeros_like(found)
        if free.any():
            goal[free] = torch.linalg.pinv(atoms[free].T, rtol=ACTIVE) @ x
        below = free & (goal <= 0)
        if not below.any():
            return goal, free
        share = (found[below] / (found[below] - goal[below])).min()
        found = (found + share * (goal - found)).clamp(min=0)
        free = free & (found > 0) & ~(below & (found <= ACTIVE * found.amax()))
        found = torch.where(free, found, torch.zeros_like(found))


def _gradient_step(
    atoms: Float[Tensor, "atom d_model"], x: Float[Tensor, "d_model"], start: Float[Tensor, "atom"]
) -> Float[Tensor, "atom"]:
    """One step along the gradient, of the length that is best without the constraint; below zero is cut."""
    left = x - start @ atoms
    slope = atoms @ left
    moved = slope @ atoms
    return (start + (left @ moved) / (moved @ moved) * slope).clamp(min=0)


FITS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "nonnegative_orthogonal_matching_pursuit": nonnegative_least_squares,
    "gradient_pursuit": _gradient_step,
}


def checked(x: Tensor, dictionary: Tensor) -> tuple[Float[Tensor, "atom d_model"], Float[Tensor, "atom"]]:
    """The dictionary in float32 or wider, without gradients, and the norm of each atom in float64.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite and real, or an atom of norm zero.
    """
    if dictionary.ndim != 2 or x.shape != dictionary.shape[1:]:
        raise ValueError(
            f"x has shape [d_model] and dictionary [atom, d_model]; got {tuple(x.shape)} and {tuple(dictionary.shape)}."
        )
    for name, tensor in (("x", x), ("dictionary", dictionary)):
        if tensor.is_complex() or not tensor.isfinite().all():
            raise ValueError(f"{name} has entries that are not finite real numbers.")
    wide = dictionary.detach() if dictionary.dtype == torch.float64 else dictionary.detach().float()
    norms = torch.linalg.vector_norm(wide, dim=-1, dtype=torch.float64)
    if not (norms > 0).all():
        raise ValueError(f"Atoms {(norms == 0).nonzero().flatten().tolist()[:5]} of the dictionary have norm zero.")
    return wide, norms
