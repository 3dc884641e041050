"""What earlier implementations recorded for tiny models, under HookedTransformer's names and under the bridge's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transformer_lens import TransformerBridge

GOLDEN = Path(__file__).parent.parent / "golden"
FAMILIES = sorted(path.parent.name for path in GOLDEN.glob("*/ht_raw.safetensors"))
BRIDGED = sorted(path.parent.name for path in GOLDEN.glob("*/bridge.safetensors"))
# Earlier bridges have experts and their choice under names of HF's own.
LEFT_OUT = ("experts.", "expert_indices", "pos_embed.hook_in")


def run(family):
    bridge = TransformerBridge.boot_transformers(str(GOLDEN / family), device="cpu")
    tokens = torch.from_numpy(np.load(GOLDEN / family / "tokens.npy"))
    return bridge, tokens


def differences(cache, recorded):
    wrong = {}
    for name, value in recorded.items():
        if any(part in name for part in LEFT_OUT):
            continue
        found = cache[name].expand_as(value) if name.endswith(("pos_embed", "pos_embed.hook_out")) else cache[name]
        seen = (found > -1e30) & (value > -1e30)  # masked scores: -inf there, HF's own number here
        if found.shape != value.shape or (found - value)[seen].abs().max() > 2e-5:
            wrong[name] = (tuple(found.shape), tuple(value.shape))
    return wrong


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_activations_recorded_from_hooked_transformer(family):
    bridge, tokens = run(family)
    logits, cache = bridge.run_with_cache(tokens)
    recorded = load_file(GOLDEN / family / "ht_raw.safetensors")
    assert (logits - recorded.pop("logits")).abs().max() < 2e-5
    lacking = {name for name in recorded if name not in cache}
    assert all(".ln2." in name or "expert" in name for name in lacking), lacking
    known = {name: value for name, value in recorded.items() if name in cache and "_norm." not in name}
    assert not differences(cache, known)


@pytest.mark.parametrize("family", BRIDGED)
@torch.no_grad()
def test_activations_recorded_from_a_bridge(family):
    bridge, tokens = run(family)
    recorded = load_file(GOLDEN / family / "bridge.safetensors")
    logits, cache = bridge.run_with_cache(tokens)
    assert (logits - recorded.pop("logits")).abs().max() < 2e-5
    assert not differences(cache, recorded)
    extra = GOLDEN / family / "bridge_extra.safetensors"
    if extra.exists():
        for name, value in load_file(extra).items():
            _, cache = bridge.run_with_cache(tokens, names_filter=name)
            assert not differences(cache, {name: value}), name
