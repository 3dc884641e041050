"""Record what transformer-lens 4.3.0 finds on tiny data: sparse probes, attribution patching and faithfulness.

Run in an environment of its own (`pip install transformer-lens==4.3.0`), never in this project's:
`python tests/golden/record_studies.py`. It writes the folder `studies` beside it.
"""

import dataclasses
import importlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "studies"


def plain(thing):
    """What JSON can hold: tensors as lists, dataclasses as dicts."""
    if isinstance(thing, torch.Tensor):
        return thing.tolist()
    if dataclasses.is_dataclass(thing):
        return {field.name: plain(getattr(thing, field.name)) for field in dataclasses.fields(thing)}
    if isinstance(thing, dict):
        return {str(key): plain(value) for key, value in thing.items()}
    return [plain(one) for one in thing] if isinstance(thing, list | tuple) else thing


# --- sparse probes ----------------------------------------------------------------------------------------------------

PROBES = {
    "default": {"k": 3},
    "one feature, another seed": {"k": 1, "seed": 4},
    "standardised, all features": {"k": 8, "preprocess": "standardize"},
    "floor": {"k": 8, "preprocess": "standardize", "std_floor": 1.5},
    "no floor": {"k": 8, "preprocess": "standardize", "std_floor": 0.0},
    "unweighted": {"k": 3, "class_weight": None, "l2_strength": 0.5},
    "weak penalty": {"k": 5, "l2_strength": 1e-5},
    "the other class": {"k": 3, "positive_label": 0, "test_fraction": 0.5},
    "few iterations": {"k": 5, "max_iter": 3},
    "groups": {"k": 3, "groups": True},
    "groups, half": {"k": 3, "groups": True, "test_fraction": 0.5, "seed": 2},
}
REFUSED = {
    "not refined": {"k": 3, "max_iter": 3, "max_refinement_steps": 0},
    "strict": {"k": 3, "max_refinement_steps": 0, "decrement_tolerance": 1e-30},
}


def sparse_probes():
    probing = importlib.import_module("transformer_lens.tools.analysis.sparse_probing")
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(60, generator=generator) < 0.4).long()
    features = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    features[:, 3] += 1.5 * labels
    features[:, 5] -= labels
    features[:, 6] = 2.0  # constant
    features[:, 2] = features[:, 2] * 1e-4 + 5  # hardly changes
    groups = torch.arange(60) // 6
    save_file({"features": features, "labels": labels, "groups": groups}, FOLDER / "sparse_data.safetensors")
    found = {"fits": {}, "refused": {}}
    for name, options in PROBES.items():
        given = options | ({"groups": groups} if "groups" in options else {})
        found["fits"][name] = {"options": options, "result": plain(probing.fit_sparse_probe(features, labels, **given))}
    for name, options in REFUSED.items():
        try:
            probing.fit_sparse_probe(features, labels, **options)
        except probing.SparseProbeConvergenceError:
            found["refused"][name] = options
    sweep = probing.sweep_sparse_probe(features, labels, ks=[1, 3], n_random_subsets=4, n_label_shuffles=2, seed=5)
    found["sweep"] = plain(sweep)
    (FOLDER / "sparse.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    sparse_probes()
