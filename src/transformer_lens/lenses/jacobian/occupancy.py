"""How many dictionary atoms a vector holds, against random dictionaries; the share of variance they explain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.lenses.jacobian.sparse import ACTIVE, K, checked, most_correlated, unit_rows


@dataclass(frozen=True, eq=False)
class JSpaceOccupancy:
    """How many atoms a vector holds. All on CPU.

    Attributes:
        occupancy: after how many atoms the dictionary is furthest ahead of random ones.
        marginal_captured_variance: the share of the vector's squared norm that each further atom adds.
        control_captured_variance: the same of random dictionaries, their mean.
        support: the atoms, in the order in which they were selected.
    """

    occupancy: int
    marginal_captured_variance: Float[Tensor, "step"]
    control_captured_variance: Float[Tensor, "step"]
    support: Int[Tensor, "step"]


@dataclass(frozen=True, eq=False)
class JSpaceVarianceProfile:
    """The share of streams' squared norm that sparse sums of lens vectors explain, by layer.

    Attributes:
        layers: the blocks whose outputs were decomposed.
        median: of the shares over positions; nan: there was none.
        pooled: the sum of what is explained over the sum of squared norms.
        per_position: the shares.
    """

    layers: list[int]
    median: dict[int, float]
    pooled: dict[int, float]
    per_position: dict[int, Float[Tensor, "position"]]


@torch.no_grad()
def estimate_occupancy(
    x: Tensor, dictionary: Tensor, *, max_atoms: int = K, num_control_dictionaries: int = 32, seed: int = 0
) -> JSpaceOccupancy:
    """After how many atoms a dictionary explains a vector furthest beyond what random dictionaries do.

    Atoms are selected one by one by their direction's dot product with what is left, which is the vector less its
    projection on the span of those selected. Random dictionaries have as many atoms, with normal entries; their draws
    (on CPU, from the seed) are what this costs.

    Args:
        x: the vector: [d_model].
        dictionary: one atom in each row: [atom, d_model].
        max_atoms: how many steps.
        num_control_dictionaries: how many random dictionaries.
        seed: theirs.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a norm of zero, or a count out of range.

    Example:
        >>> atoms = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
        >>> estimate_occupancy(atoms[3] + atoms[5] + atoms[9], atoms, max_atoms=8).occupancy
        3
    """
    dictionary, norms = checked(x, dictionary)
    if not x.norm() > 0:
        raise ValueError("x is zero: no atom explains anything of it.")
    if not 1 <= max_atoms <= len(dictionary) or num_control_dictionaries < 1:
        raise ValueError(
            f"max_atoms is from 1 to the number of atoms, {len(dictionary)}, and num_control_dictionaries at least 1; "
            f"got {max_atoms} and {num_control_dictionaries}."
        )
    support, gains = _captured(x, dictionary, norms, max_atoms)
    generator = torch.Generator().manual_seed(seed)
    control = torch.zeros(max_atoms, dtype=torch.float64)
    for _ in range(num_control_dictionaries):
        drawn = torch.randn(dictionary.shape, generator=generator).to(x.device)
        control += _captured(x, *checked(x, drawn), max_atoms)[1]
    control /= num_control_dictionaries
    ahead = (gains - control).cumsum(0)
    return JSpaceOccupancy(int(ahead.argmax()) + 1, gains.float(), control.float(), torch.tensor(support))


def _captured(x: Tensor, dictionary: Tensor, norms: Tensor, steps: int) -> tuple[list[int], Float[Tensor, "step"]]:
    """Which atoms are selected, and the share of x's squared norm that each adds to what their span explains."""
    target = x.double() / x.double().norm()
    left = target
    chosen: list[int] = []
    basis = target.new_zeros(0, len(target))
    gains = torch.zeros(steps, dtype=torch.float64)
    for step in range(steps):
        best, _ = most_correlated(dictionary, norms, left, chosen)
        chosen.append(best)
        atom = unit_rows(dictionary[best].double())
        for _ in range(2):  # once more, for what rounding left of the basis
            atom = atom - basis.T @ (basis @ atom)
        if atom.norm() > ACTIVE and left.norm() > ACTIVE:
            basis = torch.cat([basis, unit_rows(atom)[None]])
            gains[step] = (basis[-1] @ left).square()
            left = target - basis.T @ (basis @ target)
        if left.norm() <= ACTIVE:
            left = torch.zeros_like(left)
    return chosen, gains


def variance_profile(
    layers: list[int], shares: dict[int, list[float]], squares: dict[int, list[float]]
) -> JSpaceVarianceProfile:
    """The profile of shares explained, with the squared norms that they are shares of."""
    per_position = {layer: torch.tensor(shares[layer]) for layer in layers}
    pooled = {
        layer: float((per_position[layer] * torch.tensor(squares[layer])).sum() / sum(squares[layer]))
        if squares[layer]
        else float("nan")
        for layer in layers
    }
    median = {layer: float(found.median()) if len(found) else float("nan") for layer, found in per_position.items()}
    return JSpaceVarianceProfile(layers, median, pooled, per_position)
