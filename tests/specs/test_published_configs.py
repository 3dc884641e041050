"""Configurations of published models: accepted with their old fields, and read as what they are."""

import json

import pytest
from published_configs import PUBLISHED

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.models.huggingface import config_of_folder
from transformer_lens.specs import UnsupportedModelError, fields_of, find_spec
from transformer_lens.specs.listing import names_of
from transformer_lens.specs.names import official_names


def read(tmp_path, fields):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    config = config_of_folder(tmp_path)
    spec = find_spec(config)
    return spec, HookedTransformerConfig.from_dict({**fields_of(spec, config), "init_weights": False})


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_accepted(tmp_path, name):
    spec, cfg = read(tmp_path, PUBLISHED[name])
    assert cfg.n_layers > 4
    if name in official_names():
        assert name in names_of(spec)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "EleutherAI/pythia-70m",
            {"rotary_dim": 16, "rotary_base": 10000, "parallel_attn_mlp": True, "act_fn": "gelu"},
        ),
        ("EleutherAI/gpt-neo-125M", {"use_local_attn": True, "window_size": 256, "use_attn_scale": False}),
        ("EleutherAI/gpt-j-6B", {"rotary_adjacent_pairs": True, "rotary_dim": 64, "d_mlp": 16384}),
        ("bigscience/bloom-560m", {"d_model": 1024, "n_heads": 16, "n_ctx": 2048, "d_mlp": 4096}),
        (
            "meta-llama/Llama-3.1-8B",
            {
                "use_NTK_by_parts_rope": True,
                "rotary_base": 500000.0,
                "n_key_value_heads": 8,
                "NTK_original_ctx_len": 8192,
            },
        ),
        ("meta-llama/Llama-2-7b-hf", {"n_key_value_heads": None, "rotary_base": 10000.0, "eps": 1e-5}),
        ("mistralai/Mistral-7B-v0.1", {"window_size": 4096, "attn_types": ["local"] * 32}),
        ("Qwen/Qwen2.5-0.5B", {"use_local_attn": False, "default_prepend_bos": False}),
        ("google/gemma-2b", {"act_fn": "gelu_pytorch_tanh", "n_key_value_heads": 1}),
        (
            "google/gemma-2-2b",
            {"attn_scale": 16.0, "attn_scores_soft_cap": 50.0, "attn_types": ["local", "global"] * 13},
        ),
        ("google/gemma-3-1b-pt", {"rotary_base": 1000000, "rotary_base_local": 10000, "window_size": 512}),
        ("microsoft/phi-2", {"rotary_dim": 32, "parallel_attn_mlp": True}),
        ("allenai/Olmo-3-1025-7B", {"yarn_global_attn_only": True, "yarn_factor": 8.0, "rotary_base_local": 500000}),
        ("openai/gpt-oss-20b", {"yarn_truncate": False, "clamped_glu_limit": 7.0, "num_experts": 32}),
        ("swiss-ai/Apertus-8B-2509", {"act_fn": "xielu", "use_qk_norm": True, "gated_mlp": False}),
        ("tiiuae/falcon-7b", {"n_key_value_heads": 1, "parallel_attn_mlp": True}),
    ],
)
def test_it_is_read_as_what_it_is(tmp_path, name, wanted):
    _, cfg = read(tmp_path, PUBLISHED[name])
    assert {field: getattr(cfg, field) for field in wanted} == wanted


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Qwen/Qwen3-0.6B", {"mlp_bias": True}, "mlp_bias=True"),
        ("meta-llama/Llama-3.1-8B", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "kind 'dynamic'"),
        ("Qwen/Qwen3-0.6B", {"sparse_top": 7}, "sparse_top=7"),
        ("google/gemma-2-2b", {"use_bidirectional_attention": True}, "bidirectional attention"),
        ("openai/gpt-oss-20b", {"swiglu_alpha": 2.0}, "swiglu_alpha=2.0"),
        ("tiiuae/falcon-7b", {"alibi": True}, "alibi=True"),
        ("facebook/opt-125m", {"word_embed_proj_dim": 512}, "word_embed_proj_dim=512 has projections"),
        ("facebook/opt-125m", {"do_layer_norm_before": False}, "norms after the residual sum"),
        ("bigscience/bloom-560m", {"apply_residual_connection_post_layernorm": True}, "begins after ln1"),
        (
            "mistralai/Mistral-7B-v0.1",
            {"quantization_config": {"bits": 4, "quant_method": "gptq"}},
            "quantization_config",
        ),
        ("Qwen/Qwen3-0.6B", {"model_type": "deepseek_v3"}, "has latent attention"),
        ("gpt2", {"model_type": "mamba"}, "has state spaces"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(tmp_path, name, change, message):
    with pytest.raises(UnsupportedModelError, match=message):
        read(tmp_path, PUBLISHED[name] | change)
