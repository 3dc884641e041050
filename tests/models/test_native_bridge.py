"""The native host behind the bridge's names: the numbers of a HookedTransformer with the same weights."""

import copy

import pytest
import torch

from toys import BASE, KINDS, TOKENS, randomise
from transformer_lens import HookedTransformer, HookedTransformerConfig, TransformerBridge, TransformerBridgeConfig
from transformer_lens.errors import ConfigurationError

CHOSEN = ("plain", "attn_only", "gated_grouped", "norms_around", "parallel_rotary", "experts", "sinks", "alibi",
          "shortformer", "no_weights_in_norms", "norm_in_mlp", "windows")  # fmt: skip


def pair(kind):
    """A bridge over the native host, and a HookedTransformer with its weights."""
    fields = {**BASE, **KINDS[kind]}
    bridge = TransformerBridge.boot_native(fields)
    randomise(bridge)
    model = HookedTransformer(fields)
    model.load_state_dict({name.removeprefix("model."): value for name, value in bridge.state_dict().items()})
    return bridge, model


def double(activation, hook):
    return activation * 2


@pytest.mark.parametrize("kind", CHOSEN)
@torch.no_grad()
def test_numbers_are_the_native_hosts_under_both_spellings(kind):
    bridge, model = pair(kind)
    expected, native = model.run_with_cache(TOKENS)
    assert torch.equal(bridge(TOKENS), model(TOKENS))
    logits, cache = bridge.run_with_cache(TOKENS)
    assert torch.equal(logits, expected)
    for name, value in native.items():
        assert torch.equal(cache[name], value), name
    assert "blocks.0.attn.q.hook_out" in list(cache)
    assert bridge.blocks[1].attn.q.hook_out is bridge.hook_dict["blocks.1.attn.hook_q"]
    assert torch.equal(bridge.W_Q, model.W_Q)
    assert torch.equal(bridge.W_U, model.W_U)
    if not model.cfg.attn_only:
        assert torch.equal(bridge.W_in, model.W_in)


@pytest.mark.parametrize("kind", ["plain", "gated_grouped", "norms_around", "experts", "parallel_rotary"])
@torch.no_grad()
def test_edits_do_what_they_do_on_the_native_host(kind):
    bridge, model = pair(kind)
    plain = bridge(TOKENS)
    for name in model.hook_dict:
        if "hook_tokens" in name or "indices" in name or ("attn_in" in name and model.cfg.n_key_value_heads):
            continue
        hooks = [(name, double)]
        assert torch.equal(
            bridge.run_with_hooks(TOKENS, fwd_hooks=hooks), model.run_with_hooks(TOKENS, fwd_hooks=hooks)
        )
    assert torch.equal(bridge(TOKENS), plain)


@torch.no_grad()
def test_layers_padding_generation_and_analysis():
    bridge, model = pair("norms_around")
    stream = bridge(TOKENS, stop_at_layer=1)
    assert torch.equal(stream, model(TOKENS, stop_at_layer=1))
    assert torch.equal(bridge(stream, start_at_layer=1), bridge(TOKENS))
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), TOKENS], 1)
    mask = (torch.arange(10) >= 3).long().expand(2, -1)
    assert torch.allclose(bridge(padded, attention_mask=mask)[:, 3:], bridge(TOKENS), atol=1e-5)
    settings = {"max_new_tokens": 4, "do_sample": False, "stop_at_eos": False, "verbose": False}
    assert torch.equal(bridge.generate(TOKENS, **settings), model.generate(TOKENS, **settings))
    found, expected = (m.run_with_cache(TOKENS)[1].get_full_resid_decomposition() for m in (bridge, model))
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(copy.deepcopy(bridge)(TOKENS), bridge(TOKENS))


def test_it_trains():
    bridge, _ = pair("plain")
    loss = bridge(TOKENS, return_type="loss")
    loss.backward()
    assert all(parameter.grad is not None for parameter in bridge.parameters())


@torch.no_grad()
def test_compatibility_mode_folds_in_a_tree_of_its_own():
    bridge, model = pair("plain")
    before, caller = bridge(TOKENS).log_softmax(-1), bridge.original_model
    bridge.enable_compatibility_mode()
    assert torch.allclose(bridge(TOKENS).log_softmax(-1), before, atol=1e-5)
    assert bridge.original_model is not caller
    assert torch.equal(caller(TOKENS).logits, model(TOKENS))
    model.process_weights_()
    assert torch.allclose(bridge.W_Q, model.W_Q, atol=1e-6)
    assert torch.allclose(bridge.b_O, model.b_O, atol=1e-6)


def test_configurations_of_every_kind_and_what_is_refused():
    fields = {**BASE, "act_fn": "gelu"}
    for config in (fields, HookedTransformerConfig(**fields), TransformerBridgeConfig(**fields, architecture="own")):
        bridge = TransformerBridge.boot_native(config, dtype=torch.bfloat16, model_name="mine")
        assert (bridge.cfg.model_name, bridge.W_Q.dtype, bridge.cfg.d_mlp) == ("mine", torch.bfloat16, 20)
    with pytest.raises(ConfigurationError, match="d_modle"):
        TransformerBridge.boot_native({**fields, "d_modle": 3})
    with pytest.raises(ConfigurationError, match="act_fn"):
        TransformerBridge.boot_native({**fields, "act_fn": "gleu"})
