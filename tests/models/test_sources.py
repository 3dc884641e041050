"""Bridges by where their models come from, under the names of 4.3."""

import inspect
import json

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MambaConfig,
)

from transformer_lens import HookedTransformer, HookedTransformerConfig, TransformerBridge
from transformer_lens.errors import ConfigurationError
from transformer_lens.models import hub
from transformer_lens.models.sources import (
    boot_native,
    boot_tl_legacy,
    boot_transformers,
    build_bridge_config_from_hf,
    derive_tl_legacy_config,
    fetch_tl_legacy_state_dict,
)
from transformer_lens.specs import UnsupportedModelError
from transformer_lens.wrapped.wiring import Stopped

NAME = "NeelNanda/GELU_1L512W_C4_Code"
TOY = {
    "d_model": 8, "n_layers": 1, "d_mlp": 16, "d_head": 4, "n_heads": 2, "n_ctx": 6, "d_vocab": 7, "act_fn": "gelu",
    "normalization_type": "LN",
}  # fmt: skip


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A toy model, as the hub would give it: the weights at the end and of one checkpoint, b_U of zeros left out."""
    model = HookedTransformer(HookedTransformerConfig(**TOY, seed=0, device="cpu"))
    (tmp_path / "config.json").write_text(json.dumps(TOY))
    state = {name: x for name, x in model.state_dict().items() if name != "unembed.b_U"}
    torch.save(state, tmp_path / "model_final.pth")
    torch.save({name: 2 * x for name, x in state.items()}, tmp_path / "SoLU_000001000.pth")
    monkeypatch.setattr(hub, "list_files", lambda name, **options: sorted(path.name for path in tmp_path.iterdir()))
    monkeypatch.setattr(hub, "fetch_file", lambda name, file, **options: tmp_path / file)
    return model


@torch.no_grad()
def test_a_toy_model_boots_on_the_native_host(toy):
    bridge = boot_tl_legacy("gelu-1l", device="cpu")
    tokens = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(bridge(tokens), toy(tokens))
    assert bridge.cfg.model_name == "GELU_1L512W_C4_Code"
    with pytest.raises(ConfigurationError, match="'gpt2' is none of the models published in this library's own format"):
        boot_tl_legacy("gpt2")


def test_its_configuration_and_weights_alone(toy):
    cfg = derive_tl_legacy_config(NAME)
    assert {name: getattr(cfg, name) for name in TOY} == TOY
    state = fetch_tl_legacy_state_dict(NAME, cfg, dtype=torch.float64)
    assert torch.equal(state["blocks.0.attn.W_Q"], toy.W_Q[0].double())


def test_the_other_sources_are_the_classmethods():
    assert boot_native(TOY).cfg.d_model == 8
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=20, n_positions=16))
    assert boot_transformers("mine", hf_model=model).original_model is model
    assert next(iter(inspect.signature(boot_transformers).parameters)) == "model_name"


def test_a_configuration_without_a_model():
    config = GPT2Config(n_layer=3, n_embd=8, n_head=2, vocab_size=20, n_positions=16)
    found = build_bridge_config_from_hf(config, "GPT2LMHeadModel", "mine", torch.bfloat16)
    booted = TransformerBridge.boot_transformers("mine", hf_model=GPT2LMHeadModel(config)).cfg
    for name in ("d_model", "d_head", "n_layers", "n_ctx", "d_vocab", "act_fn", "architecture", "model_name", "eps"):
        assert getattr(found, name) == getattr(booted, name), name
    assert found.dtype == torch.bfloat16
    with pytest.raises(UnsupportedModelError, match="'mamba' has state spaces"):
        build_bridge_config_from_hf(MambaConfig(), "MambaForCausalLM", "mine", torch.float32)


def test_what_ends_a_pass_holds_the_stream():
    stream = torch.ones(2)
    stopped = Stopped(stream)
    assert stopped.layer_output is stopped.stream is stream


@torch.no_grad()
def test_pictures_go_into_a_pass_and_into_generation():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        text_config=LlamaConfig(**sizes, vocab_size=40),
        vision_config=CLIPVisionConfig(**sizes, image_size=8, patch_size=4),
        image_token_index=3, vision_feature_layer=-1,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    bridge = TransformerBridge.boot_transformers(hf_model=model)
    tokens, picture = torch.tensor([[5, 3, 3, 3, 3, 6]]), torch.randn(1, 3, 8, 8)
    logits = bridge(tokens, pixel_values=picture)
    assert torch.equal(logits, model(tokens, pixel_values=picture).logits)
    assert not torch.equal(logits, bridge(tokens, pixel_values=-picture))
    settings = {"max_new_tokens": 2, "do_sample": False, "stop_at_eos": False}
    seen = bridge.generate(tokens, pixel_values=picture, verbose=False, **settings)
    assert torch.equal(seen, bridge.hf_generate(tokens, pixel_values=picture, **settings))
    assert seen[0, 6] == logits[0, -1].argmax()
