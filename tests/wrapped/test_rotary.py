"""The tables of rotary embeddings as hook points: what they hold, and that all layers rotate by them."""

import pytest
import torch
from tests.models.families import hf_model, tokens

from transformer_lens import TransformerBridge

NAMES = ("rotary_emb.hook_cos", "rotary_emb.hook_sin")


@pytest.mark.parametrize("row", ["llama", "gpt_neox", "gpt_oss"])
@torch.no_grad()
def test_tables_are_those_of_the_module_and_all_layers_rotate_by_them(row):
    bridge = TransformerBridge.boot_transformers(hf_model=hf_model(row))
    before = bridge(tokens())
    _, cache = bridge.run_with_cache(tokens())
    path = bridge.host.anatomy.ends.rotary
    positions = torch.arange(tokens().shape[1])[None]
    made = bridge.original_model.get_submodule(path)(cache["blocks.0.hook_in"], positions)
    assert all(torch.equal(cache[name], table) for name, table in zip(NAMES, made, strict=True))
    # Turned by nothing, queries and keys are what they were before.
    still = [(NAMES[0], lambda x, hook: torch.ones_like(x)), (NAMES[1], lambda x, hook: torch.zeros_like(x))]
    with bridge.hooks(fwd_hooks=still):
        logits, cache = bridge.run_with_cache(tokens())
    for layer in range(bridge.cfg.n_layers):
        assert torch.equal(cache["rot_q", layer], cache["q", layer])
        assert torch.equal(cache["rot_k", layer], cache["k", layer])
    assert not torch.equal(logits, before)
    assert torch.equal(bridge(tokens()), before)
    assert not bridge.original_model.get_submodule(path)._forward_hooks


@pytest.mark.parametrize("row", ["gpt2", "gptj", "gemma3"])
def test_no_hook_points_without_a_module_that_makes_one_pair(row):
    bridge = TransformerBridge.boot_transformers(hf_model=hf_model(row))
    assert not [name for name in bridge.hook_dict if name.startswith("rotary_emb")]
