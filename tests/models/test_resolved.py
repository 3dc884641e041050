"""Bridges over models that no spec describes: their own numbers, hooks that fire and act, parts that add up."""

import copy
import json
from pathlib import Path

import pytest
import torch
from census.examine import examine_apart
from census.report import KINDS
from census.tiny import tiny_model
from tests.models.families import hf_model, tokens
from transformers import AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from transformer_lens.models.bridge_readout import end_of
from transformer_lens.models.transformer_bridge import TransformerBridge
from transformer_lens.models.verifying import UntrustedHooksWarning, verify
from transformer_lens.wrapped.host import WrappedHost
from transformer_lens.wrapped.resolver import resolve

STREAM_SUMS = "resid_pre + attn_out + mlp_out = resid_post"
# One type for each mechanism: post-norm encoders, latent attention, state spaces, hybrids, experts, odd streams.
CHOSEN = ("bert", "biogpt", "bart", "ctrl", "dbrx", "deepseek_v3", "falcon_h1", "gemma3n_text", "granitemoehybrid",
          "jamba", "lfm2", "llama4_text", "mamba", "mamba2", "minicpm3", "nemotron_h", "qwen3_next", "recurrent_gemma",
          "rwkv", "zamba2")  # fmt: skip
OTHER_SUMS = ("gemma3n_text", "rwkv", "granitemoehybrid")  # several streams; a norm before the first layer; two MLPs


def bridge_over(model_type):
    return TransformerBridge.boot_transformers(hf_model=tiny_model(model_type))


@pytest.mark.parametrize("model_type", CHOSEN)
def test_it_passes_its_verification(model_type):
    found = verify(bridge_over(model_type))
    assert found.passed, str(found)
    assert not found.untrusted, str(found)
    if model_type not in OTHER_SUMS:
        assert found.outcome(STREAM_SUMS) == "holds", str(found)


@pytest.mark.census
@pytest.mark.parametrize(("kind", "least"), [("causal", 182), ("masked", 44), ("seq2seq", 36), ("image-text", 79)])
def test_as_many_types_that_transformers_ships_pass_as_the_page_says(kind, least):
    from transformers.models.auto import modeling_auto

    auto, table = KINDS[kind]
    types = list(getattr(modeling_auto, table))
    failed = [row for row in (examine_apart(model_type, auto) for model_type in types) if not row.passed]
    assert len(types) - len(failed) >= least, [(row.model_type, row.error) for row in failed]
    page = (Path(__file__).parents[2] / "docs" / "census.md").read_text()
    assert f"- {kind}: {least} of " in page


@torch.no_grad()
def test_hooks_have_both_spellings_and_hold_what_modules_make():
    bridge = bridge_over("deepseek_v3")
    tokens = torch.arange(3, 11)[None]
    seen = {}
    handle = bridge.original_model.model.layers[1].self_attn.q_a_proj.register_forward_hook(
        lambda module, args, output: seen.update(q=output)
    )
    _, cache = bridge.run_with_cache(tokens)
    handle.remove()
    assert torch.equal(cache["blocks.1.attn.q_a_proj.hook_out"], seen["q"])
    assert torch.equal(cache["resid_mid", 1], cache["resid_pre", 1] + cache["attn_out", 1])
    assert torch.equal(cache["resid_post", 1], cache["resid_mid", 1] + cache["mlp_out", 1])
    assert cache["pattern", 1].shape == (1, 4, 8, 8)


@torch.no_grad()
def test_an_edit_of_resid_mid_moves_the_skip_connection_too():
    bridge = bridge_over("deepseek_v3")
    tokens = torch.arange(3, 11)[None]

    def zero(activation, hook):
        return torch.zeros_like(activation)

    with bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_mid", zero)]):
        _, cache = bridge.run_with_cache(tokens)
    torch.testing.assert_close(cache["resid_post", 1], cache["mlp_out", 1], rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_run_begins_and_stops_at_a_layer():
    bridge = bridge_over("qwen3_next")
    tokens = torch.arange(3, 11)[None]
    logits, cache = bridge.run_with_cache(tokens)
    stream = bridge(tokens, stop_at_layer=1)
    assert torch.equal(stream, cache["resid_post", 0])
    torch.testing.assert_close(bridge(stream, start_at_layer=1), logits, rtol=0, atol=1e-5)


def test_modules_of_state_spaces_have_their_own_hooks():
    names = bridge_over("mamba2").hook_dict
    assert {f"blocks.0.mixer.{part}.hook_out" for part in ("in_proj", "inner_norm", "out_proj")} <= names.keys()
    assert {f"blocks.0.mixer.{part}.hook_out" for part in ("in_proj", "x_proj", "out_proj")} <= (
        bridge_over("mamba").hook_dict.keys()
    )


def test_weights_read_under_the_fields_names_where_they_are_known():
    bridge = bridge_over("biogpt")
    block = bridge.original_model.biogpt.layers[0]
    W_Q = bridge.blocks[0].attn.W_Q
    assert torch.equal(W_Q, block.self_attn.q_proj.weight.view(4, 8, 32).transpose(1, 2))
    bridge.blocks[0].attn.W_Q = torch.zeros_like(W_Q)
    assert not block.self_attn.q_proj.weight.any()


@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss", "granitemoe", "deepseek_v3", "glm4_moe"])
@torch.no_grad()
def test_experts_can_be_seen_and_chosen(model_type):
    bridge = bridge_over(model_type)
    tokens = torch.arange(3, 11)[None]
    logits, (_, cache) = bridge(tokens), bridge.run_with_cache(tokens)
    weights, indices = cache["blocks.1.mlp.hook_expert_weights"], cache["blocks.1.mlp.hook_expert_indices"]
    assert weights.shape == (8, 4)
    assert indices.shape == (8, 2)

    def others(chosen, hook):
        return 3 - chosen

    def none(activation, hook):
        return torch.zeros_like(activation)

    assert not torch.equal(
        bridge.run_with_hooks(tokens, fwd_hooks=[("blocks.1.mlp.hook_expert_indices", others)]), logits
    )
    assert not torch.equal(
        bridge.run_with_hooks(tokens, fwd_hooks=[("blocks.1.mlp.hook_expert_weights", none)]), logits
    )
    assert torch.equal(bridge(tokens), logits)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
@torch.no_grad()
def test_an_encoder_and_its_decoder_are_both_seen(model_type):
    model = tiny_model(model_type, AutoModelForSeq2SeqLM)
    bridge = TransformerBridge.boot_transformers(hf_model=model)
    text, answer = torch.arange(3, 11)[None], torch.arange(5, 10)[None]
    logits, cache = bridge.run_with_cache(text, decoder_input_ids=answer)
    with torch.no_grad():
        expected = model(input_ids=text, decoder_input_ids=answer, output_hidden_states=True)
    torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-5)
    states = expected.encoder_hidden_states
    torch.testing.assert_close(cache["encoder_blocks.0.hook_out"], states[1], rtol=0, atol=1e-5)
    assert cache["encoder_blocks.1.attn.hook_pattern"].shape == (1, 4, 8, 8)
    assert cache["decoder_blocks.1.self_attn.hook_pattern"].shape == (1, 4, 5, 5)
    assert cache["decoder_blocks.1.cross_attn.hook_pattern"].shape == (1, 4, 5, 8)
    assert torch.equal(cache["blocks.1.hook_out"], cache["decoder_blocks.1.hook_out"])

    def zero(activation, hook):
        return torch.zeros_like(activation)

    names = ["encoder_blocks.1.hook_out", "blocks.0.cross_attn.q.hook_out", "encoder_blocks.0.mlp.hook_out"]
    for name in names:
        edited = bridge.run_with_hooks(text, decoder_input_ids=answer, fwd_hooks=[(name, zero)])
        assert not torch.allclose(edited, logits), name


@pytest.mark.parametrize("model_type", ["llava", "gemma3", "qwen2_vl"])
def test_the_text_model_inside_an_image_text_model_is_found(model_type):
    model = tiny_model(model_type, AutoModelForImageTextToText)
    bridge = TransformerBridge.boot_transformers(hf_model=model)
    assert bridge.host.anatomy.path_of_block(0).startswith("model.language_model.")
    assert verify(bridge, thorough=False).passed


def test_compatibility_mode_says_why_it_cannot_be():
    from transformer_lens.specs import UnsupportedModelError

    with pytest.raises(UnsupportedModelError, match="needs a spec"):
        bridge_over("deepseek_v3").enable_compatibility_mode()


def test_hook_points_that_cannot_be_trusted_are_left_out_with_one_warning():
    with pytest.warns(UntrustedHooksWarning, match="left out") as warned:
        bridge = bridge_over("jetmoe")
    assert len(warned) == 1
    assert verify(bridge).passed


def test_a_broken_hook_point_is_found():
    bridge = bridge_over("bert")
    slot = next(slot for slot in bridge.host.slots if slot.occupant.name == "blocks.1.mlp.hook_out")
    slot.site.path = "bert.unused"
    bridge.original_model.bert.add_module("unused", torch.nn.Linear(2, 2))  # no pass calls it
    found = verify(bridge)
    assert "blocks.1.mlp.hook_out" in found.untrusted
    assert found.outcome("every hook fires once") == "fails"


@pytest.mark.parametrize("row", ["gemma2", "cohere", "granite", "vaultgemma"])
@torch.no_grad()
def test_the_end_of_a_model_found_by_looking_makes_its_logits(row):
    model = copy.deepcopy(hf_model(row))
    host = WrappedHost(model, resolve(model, row))
    output = model(tokens(), output_hidden_states=True)
    end = end_of(host, host.anatomy.cfg)
    # The last of transformers' hidden states is after the final norm.
    torch.testing.assert_close(end.logits(output.hidden_states[-1]), output.logits, atol=1e-5, rtol=1e-4)


def test_a_wrong_end_of_a_model_is_found():
    bridge = TransformerBridge.boot_transformers(hf_model=copy.deepcopy(hf_model("gemma2")))
    statement = "unembed(ln_final(resid_post)) = logits"
    assert {check.statement: check.outcome for check in bridge.verify().checks}[statement] == "holds"
    bridge.host.anatomy.cfg.output_logits_soft_cap = -1.0
    found = bridge.verify()
    assert found.passed
    assert {check.statement: check.outcome for check in found.checks}[statement] == "fails"


def test_a_verification_prints_and_dumps():
    found = verify(bridge_over("mamba"), thorough=False)
    assert "known by its resolver" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["passed"] is True
