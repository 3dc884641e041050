"""Reading activations in the vocabulary: what the stream says at each layer, and which parts write the answer."""

from transformer_lens.lenses.attribution import DirectLogitAttribution, direct_logit_attribution, head_attribution
from transformer_lens.lenses.detectors import HeadScores, copying_scores, head_scores, ov_eigenvalues
from transformer_lens.lenses.directions import (
    SingularDirections,
    TokenReading,
    neuron_directions,
    read_directions,
    singular_directions,
)
from transformer_lens.lenses.head_detector import detect_head
from transformer_lens.lenses.ioi_heads import IOIPrompts, IOIScores, ioi_scores
from transformer_lens.lenses.jacobian import (
    CoordinatePatch,
    JacobianLens,
    JacobianLensReadout,
    JSpaceDecomposition,
    JSpaceOccupancy,
    JSpaceVarianceProfile,
    estimate_occupancy,
    get_sparse_decomposition,
    jacobian_lens,
    logit_derivative,
    solve_coordinate_patch,
    solve_coordinate_patch_positions,
)
from transformer_lens.lenses.logit_lens import LogitLens, logit_lens
from transformer_lens.lenses.patchscope import Patchscope, patchscope
from transformer_lens.lenses.readout import logit_readout
from transformer_lens.lenses.sources import SourceAttribution, source_attribution
from transformer_lens.lenses.tuned_lens import TunedLens, TunedLensOptions, mean_kl, train_tuned_lens

__all__ = [
    "CoordinatePatch",
    "DirectLogitAttribution",
    "HeadScores",
    "IOIPrompts",
    "IOIScores",
    "JSpaceDecomposition",
    "JSpaceOccupancy",
    "JSpaceVarianceProfile",
    "JacobianLens",
    "JacobianLensReadout",
    "LogitLens",
    "Patchscope",
    "SingularDirections",
    "SourceAttribution",
    "TokenReading",
    "TunedLens",
    "TunedLensOptions",
    "copying_scores",
    "detect_head",
    "direct_logit_attribution",
    "estimate_occupancy",
    "get_sparse_decomposition",
    "head_attribution",
    "head_scores",
    "ioi_scores",
    "jacobian_lens",
    "logit_derivative",
    "logit_lens",
    "logit_readout",
    "mean_kl",
    "neuron_directions",
    "ov_eigenvalues",
    "patchscope",
    "read_directions",
    "singular_directions",
    "solve_coordinate_patch",
    "solve_coordinate_patch_positions",
    "source_attribution",
    "train_tuned_lens",
]
