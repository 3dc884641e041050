"""Sweeps over wrapped models that no spec describes: planned as far as their layers can be run again alone."""

import warnings

import pytest
import torch
from census.tiny import tiny_model

from transformer_lens import TransformerBridge
from transformer_lens.patching import Intervention, LogitDifference, SlowSweepWarning, Sweep

METRIC = LogitDifference(3, 4)


def study_of(model_type, hooks=("hook_resid_pre", "hook_resid_post", "attn.hook_z", "hook_mlp_out")):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hook points that are left out
        model = TransformerBridge.boot_transformers(hf_model=tiny_model(model_type))
    ids = torch.randint(5, 30, (2, 9), generator=torch.Generator().manual_seed(0))
    clean = ids.clone()
    clean[:, 4:] += 5
    wanted = [f"blocks.{layer}.{hook}" for layer in range(model.cfg.n_layers) for hook in hooks]
    names = [name for name in wanted if name in model.hook_dict]
    _, cache = model.run_with_cache(clean, names_filter=names)
    cells = [Intervention(name, cache, pos=6) for name in names]
    looped = []
    for name in names:

        def put(activation, hook):
            activation[:, 6] = cache[hook.name][:, 6]
            return activation

        looped.append(METRIC(model.run_with_hooks(ids, fwd_hooks=[(name, put)])).detach())
    return Sweep(model, ids, cells, METRIC), torch.stack(looped)


@pytest.mark.parametrize("model_type", ["deepseek_v3", "xglm", "llama4_text"])
def test_resolved_families_run_later_positions_alone(model_type):
    study, expected = study_of(model_type)
    assert study.plain.prefix
    torch.testing.assert_close(study.run(), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("model_type", ["mamba", "jamba", "falcon_h1", "qwen3_next", "rwkv"])
def test_layers_with_a_state_run_on_all_positions(model_type):
    study, expected = study_of(model_type)
    assert not study.plain.prefix
    assert list(study.plan.groups) == [0]
    torch.testing.assert_close(study.run(), expected, atol=2e-4, rtol=1e-4)


def test_several_streams_run_in_a_loop():
    study, expected = study_of("gemma3n_text", ("attn.hook_z", "hook_mlp_out"))
    with pytest.warns(SlowSweepWarning, match="layers of Gemma3nForCausalLM cannot be run again alone"):
        found = study.run()
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
