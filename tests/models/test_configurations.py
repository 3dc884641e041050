"""Configurations of pretrained models, without their weights. Facts of 3.9 are those of the same folder there."""

import json

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from transformer_lens import HookedTransformer
from transformer_lens.config.basic import BasicConfig
from transformer_lens.errors import ConfigurationError
from transformer_lens.models import hub
from transformer_lens.models.configurations import (
    convert_hf_model_config,
    convert_neel_model_config,
    fill_missing_keys,
    get_basic_config,
    get_pretrained_model_config,
)

# What 3.9 says of the folder below. (It also says final_rms=True, beside a norm that is RMS anyway.)
RECORDED = {
    "d_model": 8, "d_head": 4, "n_heads": 2, "d_mlp": 12, "n_layers": 2, "n_ctx": 32, "eps": 1e-06, "d_vocab": 20,
    "act_fn": "silu", "n_key_value_heads": 1, "normalization_type": "RMS", "positional_embedding_type": "rotary",
    "rotary_dim": 4, "rotary_base": 10000.0, "gated_mlp": True, "original_architecture": "LlamaForCausalLM",
}  # fmt: skip


@pytest.fixture
def llama(tmp_path):
    config = LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    return str(tmp_path)


def test_fields_of_a_folder(llama):
    fields = convert_hf_model_config(llama)
    cfg = get_pretrained_model_config(llama, device="cpu")
    assert {name: fields.get(name, getattr(cfg, name)) for name in RECORDED} == RECORDED
    assert fields["tokenizer_name"] == llama
    assert {name: getattr(cfg, name) for name in RECORDED} == RECORDED


def test_options_by_position_are_in_the_old_order(llama):
    cfg = get_pretrained_model_config(llama, None, None, None, True, "cpu", 1, False, torch.bfloat16, 1, 16)
    assert (cfg.normalization_type, cfg.device, cfg.default_prepend_bos) == ("RMSPre", "cpu", False)
    assert (cfg.dtype, cfg.n_layers, cfg.n_ctx) == (torch.bfloat16, 1, 16)


def test_a_configuration_that_is_given_is_not_looked_up():
    given = GPT2Config(n_embd=8, n_head=2, n_layer=3, vocab_size=20).to_dict()
    cfg = get_pretrained_model_config("no/such-model", given, device="cpu")
    assert (cfg.d_model, cfg.n_layers, cfg.d_vocab, cfg.model_name) == (8, 3, 20, "such-model")


def test_the_basic_numbers(llama):
    assert BasicConfig() == BasicConfig(768, True, 1e-5, 50257, 0.02, 1024, 64, 3072, 12, 12)
    basic = get_basic_config(llama)
    assert (basic.d_model, basic.d_head, basic.d_mlp, basic.n_heads, basic.n_layers) == (8, 4, 12, 2, 2)
    assert (basic.layer_norm_eps, basic.d_vocab, basic.n_ctx) == (1e-6, 20, 32)


def test_toy_models_have_a_format_of_their_own(tmp_path, monkeypatch):
    toy = {
        "d_model": 512, "n_layers": 1, "d_mlp": 2048, "d_head": 64, "n_heads": 8, "n_ctx": 1024, "d_vocab": 48262,
        "act_fn": "solu_ln", "normalization_type": "LNPre", "tokenizer_name": "NeelNanda/gpt-neox-tokenizer-digits",
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(toy))
    monkeypatch.setattr(hub, "fetch_file", lambda name, file, **options: path)
    fields = convert_neel_model_config("NeelNanda/SoLU_1L512W_C4_Code")
    assert fields.items() >= {**toy, "original_architecture": "neel"}.items()
    cfg = get_pretrained_model_config("solu-1l", device="cpu", dtype=torch.float16)
    assert (cfg.d_mlp, cfg.act_fn, cfg.dtype) == (2048, "solu_ln", torch.float16)
    with pytest.raises(ConfigurationError, match="'gpt2' is none of the models published in this library's own format"):
        convert_neel_model_config("gpt2")


def test_missing_weights_are_filled_in():
    model = HookedTransformer.from_pretrained_no_processing("demo", device="cpu")
    state = {name: x for name, x in model.state_dict().items() if not name.endswith((".b_O", "ln1.w"))}
    filled = fill_missing_keys(model, state)
    assert filled.keys() == model.state_dict().keys()
    assert not filled["blocks.2.attn.b_O"].any()
    assert bool((filled["blocks.2.ln1.w"] == 1).all())
