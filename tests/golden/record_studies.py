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
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

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


# --- attribution patching ---------------------------------------------------------------------------------------------

MODELS = {
    "gpt2": GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=8,
        n_inner=16,
        vocab_size=11,
        n_positions=8,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "llama": LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        hidden_size=8,
        intermediate_size=12,
        vocab_size=11,
        max_position_embeddings=8,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=None,
    ),
}
CLEAN = torch.tensor([[1, 2, 3, 4], [4, 5, 6, 7]])
CORRUPT = torch.tensor([[1, 5, 3, 4], [4, 9, 6, 8]])
OTHERS = torch.tensor([[1, 6, 3, 4], [2, 8, 9, 4], [0, 1, 2, 3]])


LENSES = {
    "shared": {"targets": [3, 7]},
    "of each row": {"targets": torch.tensor([3, 4])},
    "of each position": {"targets": CLEAN, "positions": None, "return_type": "log_probs"},
    "of each row at all positions": {"targets": CLEAN[:, :1], "positions": None, "return_type": "probs"},
}


def read(found):
    """A logit lens, with what its methods say."""
    readout = found.readout
    row = (0,) * (readout.values.ndim - 1)
    said = {"selected_ids": readout.selected_ids, "row_ids": readout.row_ids(row), "labels": found.labels}
    return plain({**vars(readout), **said})


def metric(logits):
    return logits[0, -1, 3] - logits[0, -1, 7]


def node(of):
    return [of.kind, of.position, of.layer, of.head, of.hook_name]


def attribution(config):
    patching = importlib.import_module("transformer_lens.tools.analysis.attribution_patching")
    sources = importlib.import_module("transformer_lens.model_bridge.sources")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(FOLDER / config.model_type)
    (FOLDER / config.model_type / "generation_config.json").unlink()
    bridge = sources.build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
    by_edge = patching.EdgeAttributionConfig(granularity="edge")
    nodes = patching.attribution_patch(bridge, CLEAN, CORRUPT, metric)
    edges = patching.attribution_patch(bridge, CLEAN, CORRUPT, metric, by_edge)
    pair = CLEAN[:1], CORRUPT[:1]
    top = patching.attribution_patch(bridge, *pair, metric, by_edge).top_edges(12)
    mean = patching.FaithfulnessConfig(ablation="mean")
    cache = patching.cache_activation_and_gradient(bridge, CORRUPT, metric)
    lens = importlib.import_module("transformer_lens.tools.analysis.logit_lens").logit_lens
    return {
        "lens": {name: read(lens(bridge, CLEAN, **options)) for name, options in LENSES.items()},
        "nodes": [[node(one), score] for one, score in nodes.node_scores.items()],
        "edges": [[node(one), node(other), score] for (one, other), score in edges.edge_scores.items()],
        "nodes_by_edges": [[node(one), score] for one, score in edges.node_scores.items()],
        "top_edges": [[node(one), node(other), score] for one, other, score in top],
        "faithfulness": plain(patching.faithfulness(bridge, *pair, metric, top)),
        "mean_ablated": plain(patching.faithfulness(bridge, *pair, metric, top, mean, mean_tokens=OTHERS)),
        "cache": plain(cache),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    sparse_probes()
    runs = {"clean": plain(CLEAN), "corrupt": plain(CORRUPT), "others": plain(OTHERS)}
    found = runs | {name: attribution(config) for name, config in MODELS.items()}
    (FOLDER / "attribution.json").write_text(json.dumps(found))
