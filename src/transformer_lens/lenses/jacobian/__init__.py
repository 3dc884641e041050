"""The Jacobian lens: fitted, saved, read; streams as sparse sums of tokens' lens vectors; edits along these."""

from transformer_lens.lenses.jacobian.coordinates import (
    CoordinatePatch,
    solve_coordinate_patch,
    solve_coordinate_patch_positions,
)
from transformer_lens.lenses.jacobian.derivative import logit_derivative
from transformer_lens.lenses.jacobian.lens import JacobianLens, jacobian_lens
from transformer_lens.lenses.jacobian.occupancy import JSpaceOccupancy, JSpaceVarianceProfile, estimate_occupancy
from transformer_lens.lenses.jacobian.reading import JacobianLensReadout
from transformer_lens.lenses.jacobian.sparse import JSpaceDecomposition, get_sparse_decomposition

__all__ = [
    "CoordinatePatch",
    "JSpaceDecomposition",
    "JSpaceOccupancy",
    "JSpaceVarianceProfile",
    "JacobianLens",
    "JacobianLensReadout",
    "estimate_occupancy",
    "get_sparse_decomposition",
    "jacobian_lens",
    "logit_derivative",
    "solve_coordinate_patch",
    "solve_coordinate_patch_positions",
]
