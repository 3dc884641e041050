"""How much two subspaces share: principal angles, the projection kernel, and what chance alone would give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.weights.factored_matrix import upcast_for_linalg
from transformer_lens.weights.matrix_index import WeightsError

ORTHONORMAL_WITHIN = 1e-3  # how far the products of columns of a basis may be from those of an orthonormal one


@dataclass(frozen=True, eq=False)
class SubspaceBasis:
    """The column space of a matrix.

    Attributes:
        basis: orthonormal columns that span it, the direction of greatest singular value first.
        singular_values: all of the matrix, descending.
        rank: how many columns are kept.
        measured_rank: how many singular values are above the threshold.
        rtol: the threshold as a share of the greatest singular value.
        threshold: the threshold.
        input_shape: of the matrix.
    """

    basis: Float[Tensor, "ambient rank"]
    singular_values: Float[Tensor, "spectrum"]
    rank: int
    measured_rank: int
    rtol: float
    threshold: float
    input_shape: tuple[int, int]

    @property
    def ambient_dim(self) -> int:
        """The width of the space that the subspace lies in."""
        return self.basis.shape[0]


@dataclass(frozen=True, eq=False)
class ProjectionKernelResult:
    """What two subspaces share.

    Attributes:
        score: the sum of squared cosines of the principal angles, from 0 to the smaller rank: ||P_a P_b||^2 of the
            projections onto them, in the Frobenius norm.
        normalized: score / sqrt(rank_a * rank_b): 1 for the same subspace, 0 for orthogonal ones.
        cosines: of the principal angles, descending.
        angles: the principal angles in radians, ascending.
        rank_a, rank_b: of the subspaces.
        ambient_dim: of the space they lie in.
    """

    score: Float[Tensor, ""]
    normalized: Float[Tensor, ""]
    cosines: Float[Tensor, "principal_angle"]
    angles: Float[Tensor, "principal_angle"]
    rank_a: int
    rank_b: int
    ambient_dim: int


@dataclass(frozen=True)
class RandomSubspaceReference:
    """The projection kernel of two subspaces drawn at random: what a score is to be compared with.

    Attributes:
        ambient_dim: of the space.
        rank: of both subspaces.
        mean: of the score.
        variance: of the score.
    """

    ambient_dim: int
    rank: int
    mean: float
    variance: float


@torch.no_grad()
def orthonormal_subspace(
    matrix: Float[Tensor, "ambient width"], *, rank: int | None = None, rtol: float | None = None
) -> SubspaceBasis:
    """The column space of a matrix, through its singular value decomposition; float32 for low-precision weights.

    Args:
        matrix: its columns span the subspace.
        rank: keep so many of the greatest directions; None: all whose singular value is above the threshold.
        rtol: singular values above this share of the greatest count; None: machine precision times the longer side.

    Raises:
        WeightsError: not a matrix, zero everywhere, or a rank that it does not have.

    Example:
        >>> found = orthonormal_subspace(torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
        >>> found.rank, found.ambient_dim
        (1, 3)
    """
    if matrix.ndim != 2 or not matrix.numel():
        raise WeightsError(f"A subspace is that of a matrix [ambient, width]; got shape {tuple(matrix.shape)}.")
    wide = upcast_for_linalg(matrix)
    directions, values, _ = torch.linalg.svd(wide, full_matrices=False)
    rtol = max(matrix.shape) * torch.finfo(wide.dtype).eps if rtol is None else rtol
    if not 0 <= rtol < 1:
        raise WeightsError(f"rtol is a share of the greatest singular value, from 0 to below 1; got {rtol}.")
    threshold = rtol * float(values[0])
    measured = int((values > threshold).sum())
    kept = measured if rank is None else rank
    if not 1 <= kept <= measured:
        raise WeightsError(f"The matrix has rank {measured} at rtol={rtol:.3g}; got rank={rank}.")
    shape = (matrix.shape[0], matrix.shape[1])
    return SubspaceBasis(directions[:, :kept], values, kept, measured, rtol, threshold, shape)


@torch.no_grad()
def projection_kernel(
    subspace_a: SubspaceBasis, subspace_b: SubspaceBasis, *, check_orthonormal: bool = True
) -> ProjectionKernelResult:
    """What two subspaces share. Source: Bjorck and Golub 1973 (angles), Hamm and Lee 2008 (projection kernel).

    Args:
        subspace_a, subspace_b: of one space.
        check_orthonormal: make sure that the columns of both bases are orthonormal.

    Raises:
        WeightsError: subspaces of different spaces, or a basis that is not orthonormal.

    Example:
        >>> plane, line = orthonormal_subspace(torch.eye(3, 2)), orthonormal_subspace(torch.ones(3, 1))
        >>> round(float(projection_kernel(plane, line).score), 4)
        0.6667
    """
    a, b = subspace_a.basis, subspace_b.basis
    if len(a) != len(b):
        raise WeightsError(f"The subspaces lie in spaces of {len(a)} and {len(b)} dimensions; they must be the same.")
    for name, basis in (("subspace_a", a), ("subspace_b", b)) if check_orthonormal else ():
        off = (basis.T @ basis - torch.eye(basis.shape[1]).to(basis)).abs().max()
        if off > ORTHONORMAL_WITHIN:
            raise WeightsError(
                f"The columns of {name}.basis are not orthonormal (off by {float(off):.2g}); "
                "make it by orthonormal_subspace(matrix)."
            )
    cosines = torch.linalg.svdvals(a.T @ b.to(a)).clamp(0, 1)
    score = (cosines**2).sum()
    rank_a, rank_b = a.shape[1], b.shape[1]
    normalized = score / math.sqrt(rank_a * rank_b)
    return ProjectionKernelResult(score, normalized, cosines, cosines.acos(), rank_a, rank_b, len(a))


def random_projection_kernel_moments(ambient_dim: int, rank: int) -> RandomSubspaceReference:
    """The exact mean and variance of the score of two subspaces of one rank, drawn uniformly.

    With r the rank and n the dimensions: mean r^2 / n, variance 2 r^2 (n - r)^2 / (n^2 (n - 1) (n + 2)).

    Raises:
        WeightsError: the space does not hold such a subspace.

    Example:
        >>> random_projection_kernel_moments(100, 10).mean
        1.0
    """
    if not 1 <= rank <= ambient_dim:
        raise WeightsError(f"A subspace of {ambient_dim} dimensions has rank 1 to {ambient_dim}; got {rank}.")
    n, r = ambient_dim, rank
    variance = 2 * r**2 * (n - r) ** 2 / (n**2 * (n - 1) * (n + 2)) if n > 1 else 0.0
    return RandomSubspaceReference(n, r, r**2 / n, variance)
