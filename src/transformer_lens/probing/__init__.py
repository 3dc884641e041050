"""Probes: what can be read from activations by a linear map, what of it is the probe's own doing, and directions.

Fitting needs scikit-learn (`pip install "transformer-lens[probing]"`); splits, controls, directions and
`certain_sparse_probe`, which solves the probe of two classes itself, need nothing.
"""

from transformer_lens.probing.activations import layer_activations
from transformer_lens.probing.directions import PrincipalDirections, difference_in_means, principal_directions
from transformer_lens.probing.linear import LinearProbe, ProbeOptions, fit_probe
from transformer_lens.probing.sparse import SparseProbe, fit_sparse_probe, rank_features
from transformer_lens.probing.sparse_logistic import SparseProbeResult
from transformer_lens.probing.sparse_logistic import fit_sparse_probe as certain_sparse_probe
from transformer_lens.probing.sparse_sweep import SparseProbeSweep, sweep_sparse_probe
from transformer_lens.probing.splits import Split, control_labels, grouped_split, stratified_split
from transformer_lens.probing.study import ProbeStudy, probe_layers

__all__ = [
    "LinearProbe",
    "PrincipalDirections",
    "ProbeOptions",
    "ProbeStudy",
    "SparseProbe",
    "SparseProbeResult",
    "SparseProbeSweep",
    "Split",
    "certain_sparse_probe",
    "control_labels",
    "difference_in_means",
    "fit_probe",
    "fit_sparse_probe",
    "grouped_split",
    "layer_activations",
    "principal_directions",
    "probe_layers",
    "rank_features",
    "stratified_split",
    "sweep_sparse_probe",
]
