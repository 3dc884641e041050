"""Configurations: every field acts or is refused."""

import copy
from dataclasses import fields

import pytest
import torch

from annotations import unchecked
from toys import BASE, KINDS, LOCAL, ROTARY, TOKENS, randomise, toy
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.config import TransformerLensConfig
from transformer_lens.errors import ConfigurationError

EXPERTS = {**ROTARY, "act_fn": "silu", "gated_mlp": True, "num_experts": 4, "experts_per_token": 2}
NTK = {**ROTARY, "use_NTK_by_parts_rope": True, "NTK_original_ctx_len": 16, "rotary_base": 100}
LONGROPE = {"longrope_short_factors": [1.0, 2.0], "longrope_long_factors": [2.0, 4.0], "longrope_original_ctx": 3}
YARN = {**ROTARY, "use_yarn_rope": True, "yarn_factor": 4.0, "yarn_original_max_position_embeddings": 30,
        "rotary_base": 20, "d_head": 16}  # fmt: skip

# What a configuration computes changes when the second set of fields is added to the first.
ACTS = {
    "act_fn": ({}, {"act_fn": "gelu"}),
    "attention_dir": ({}, {"attention_dir": "bidirectional"}),
    "attn_only": ({}, {"attn_only": True}),
    "attn_scale": ({}, {"attn_scale": 5.0}),
    "attn_scores_soft_cap": ({}, {"attn_scores_soft_cap": 0.5}),
    "attn_types": (LOCAL, {"attn_types": ["local", "global"]}),
    "clip_qkv": ({}, {"clip_qkv": 0.2}),
    "clamped_glu_limit": (EXPERTS, {"clamped_glu_limit": 0.1}),
    "d_head": ({}, {"d_head": 8}),
    "d_mlp": ({}, {"d_mlp": 9}),
    "d_model": ({}, {"d_model": 12}),
    "d_vocab": ({}, {"d_vocab": 40}),
    "d_vocab_out": ({}, {"d_vocab_out": 5}),
    "dtype": ({}, {"dtype": torch.float64}),
    "eps": ({}, {"eps": 0.5}),
    "expert_biases": (EXPERTS, {"expert_biases": True}),
    "d_shared_expert": (EXPERTS, {"d_shared_expert": 6}),
    "experts_per_token": (EXPERTS, {"experts_per_token": 1}),
    "final_rms": ({}, {"final_rms": True}),
    "gated_mlp": ({}, {"gated_mlp": True}),
    "gated_mlp_biases": ({"gated_mlp": True}, {"gated_mlp_biases": True}),
    "longrope_short_factors": (ROTARY, LONGROPE),
    "longrope_long_factors": (ROTARY | LONGROPE, {"longrope_long_factors": [3.0, 9.0]}),
    "longrope_original_ctx": (ROTARY | LONGROPE, {"longrope_original_ctx": 64}),
    "longrope_attention_factor": (ROTARY | LONGROPE, {"longrope_attention_factor": 1.5}),
    "n_heads": ({}, {"n_heads": 2}),
    "n_key_value_heads": ({}, {"n_key_value_heads": 2}),
    "n_layers": ({}, {"n_layers": 1}),
    "norm_topk_prob": (EXPERTS, {"norm_topk_prob": True}),
    "normalization_type": ({}, {"normalization_type": "RMS"}),
    "num_experts": (EXPERTS, {"num_experts": 3}),
    "output_logits_soft_cap": ({}, {"output_logits_soft_cap": 0.5}),
    "parallel_attn_mlp": ({}, {"parallel_attn_mlp": True}),
    "positional_embedding_type": ({}, {"positional_embedding_type": "none"}),
    "post_embedding_ln": ({}, {"post_embedding_ln": True}),
    "qk_layer_norm": ({**ROTARY, "use_qk_norm": True}, {"qk_layer_norm": True}),
    "qk_norm_across_heads": ({**ROTARY, "use_qk_norm": True}, {"qk_norm_across_heads": True}),
    "rotary_adjacent_pairs": (ROTARY, {"rotary_adjacent_pairs": True}),
    "rotary_base": (ROTARY, {"rotary_base": 5}),
    "rotary_base_local": ({**ROTARY, **LOCAL}, {"rotary_base_local": 5}),
    "rotary_dim": (ROTARY, {"rotary_dim": 2}),
    "rotary_layers": (ROTARY, {"rotary_layers": [1]}),
    "rotary_scaling_factor": (ROTARY, {"rotary_scaling_factor": 4.0}),
    "scale_attn_by_inverse_layer_idx": ({}, {"scale_attn_by_inverse_layer_idx": True}),
    "softmax_over_chosen_experts": (EXPERTS, {"softmax_over_chosen_experts": True}),
    "train_seq_length": ({**ROTARY, "use_dynamic_ntk_rope": True, "train_seq_length": 3}, {"train_seq_length": 4}),
    "use_NTK_by_parts_rope": ({**ROTARY, "rotary_base": 100}, {**NTK}),
    "NTK_by_parts_low_freq_factor": (NTK, {"NTK_by_parts_low_freq_factor": 0.05}),
    "NTK_by_parts_high_freq_factor": (NTK, {"NTK_by_parts_high_freq_factor": 8.0}),
    "NTK_by_parts_factor": (NTK, {"NTK_by_parts_factor": 2.0}),
    "NTK_original_ctx_len": (NTK, {"NTK_original_ctx_len": 8}),
    "use_attention_sinks": ({}, {"use_attention_sinks": True}),
    "use_attn_scale": ({}, {"use_attn_scale": False}),
    "use_dynamic_ntk_rope": (ROTARY, {"use_dynamic_ntk_rope": True, "train_seq_length": 3}),
    "use_local_attn": ({}, LOCAL),
    "use_logn_attn": (ROTARY, {"use_logn_attn": True, "train_seq_length": 2}),
    "use_normalization_after_only": ({}, {"use_normalization_after_only": True}),
    "use_normalization_before_and_after": ({}, {"use_normalization_before_and_after": True}),
    "use_qk_norm": ({}, {"use_qk_norm": True}),
    "use_yarn_rope": ({**ROTARY, "rotary_base": 20, "d_head": 16}, YARN),
    "window_size": (LOCAL, {"window_size": 2}),
    "yarn_attention_factor": (YARN, {"yarn_attention_factor": 2.0}),
    "yarn_beta_fast": (YARN, {"yarn_beta_fast": 3.0}),
    "yarn_beta_slow": (YARN, {"yarn_beta_slow": 0.1}),
    "yarn_factor": (YARN, {"yarn_factor": 2.0}),
    "yarn_global_attn_only": ({**YARN, **LOCAL}, {"yarn_global_attn_only": True}),
    "yarn_original_max_position_embeddings": (YARN, {"yarn_original_max_position_embeddings": 100}),
    "yarn_truncate": (YARN, {"yarn_truncate": False}),
}  # fmt: skip
# These act elsewhere: each with the test that shows it.
ELSEWHERE = {
    "default_prepend_bos": "test_text_methods",
    "tokenizer_name": "test_text_methods",
    "trust_remote_code": "test_text_methods",
    "tokenizer_prepends_bos": "test_text_methods",
    "use_attn_result": "test_model_cache",
    "use_split_qkv_input": "test_model_cache",
    "use_attn_in": "test_model_cache",
    "use_hook_mlp_in": "test_model_cache",
    "use_hook_tokens": "test_model_cache",
    "ungroup_grouped_query_attention": "test_model_cache",
    "init_mode": "test_parameters",
    "initializer_range": "test_parameters",
    "init_weights": "here",
    "seed": "test_parameters",
    "device": "here",
    "n_devices": "here",
    "n_ctx": "test_laws",
    "n_params": "here",
    "uses_rms_norm": "here",
}
# They say where a model came from, and change nothing.
LABELS = {"model_name", "original_architecture", "from_checkpoint", "checkpoint_index", "checkpoint_label_type",
          "checkpoint_value"}  # fmt: skip
REFUSED_BY_MODEL = {"relative_attention_max_distance": 8, "relative_attention_num_buckets": 8,
                    "decoder_start_token_id": 1, "tie_word_embeddings": True}  # fmt: skip
REFUSED = {"load_in_4bit": True, "quantization_method": "bitsandbytes", "layer_norm_folding": True}


def outcome(given):
    """What a model of this configuration computes, from weights that depend on their names and shapes alone."""
    model = HookedTransformer({**BASE, **given})
    randomise(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(sum(map(ord, name)))
            drawn = torch.randn(parameter.shape, generator=generator) * 0.5
            parameter.copy_(1 + drawn if name.endswith(".w") else drawn)
        return model(TOKENS)


def test_every_field_is_in_one_table():
    named = [*ACTS, *ELSEWHERE, *LABELS, *REFUSED_BY_MODEL, *REFUSED]
    assert sorted(named) == sorted(field.name for field in fields(HookedTransformerConfig))


@pytest.mark.parametrize("name", list(ACTS))
def test_the_field_acts(name):
    base, change = ACTS[name]
    before, after = outcome(base), outcome({**base, **change})
    same_kind = before.shape == after.shape and before.dtype == after.dtype
    assert not same_kind or (before - after).abs().max() > 1e-4


@pytest.mark.parametrize("act_fn", ["relu", "relu2", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu",
                                    "silu", "solu", "solu_ln", "xielu", "tanh"])  # fmt: skip
def test_activations(act_fn):
    assert outcome({"act_fn": act_fn}).isfinite().all()


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_the_native_transformer_cannot_honour_is_refused(name):
    with pytest.raises(ConfigurationError, match=name):
        HookedTransformerConfig(**BASE, **{name: REFUSED[name]})


@pytest.mark.parametrize("name", list(REFUSED_BY_MODEL))
def test_what_is_for_encoder_decoders_is_refused_by_the_model(name):
    with pytest.raises(ConfigurationError, match=f"{name} is for encoder-decoders"):
        HookedTransformer({**BASE, name: REFUSED_BY_MODEL[name]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window_size": 3}, "window_size=3 has no effect without use_local_attn"),
        ({"use_local_attn": True}, "needs window_size and attn_types"),
        ({**LOCAL, "attn_types": ["local"]}, "for each of 2 layers"),
        ({**LOCAL, "attn_types": ["local", "wide"]}, "wide"),
        ({"attn_types": ["local", "local"]}, "without use_local_attn"),
        ({"experts_per_token": 2}, "without num_experts"),
        ({"num_experts": 2}, "without experts_per_token"),
        ({"num_experts": 2, "experts_per_token": 3}, "exceeds num_experts=2"),
        ({"norm_topk_prob": True}, "without num_experts"),
        ({"ungroup_grouped_query_attention": True}, "without n_key_value_heads"),
        ({"n_key_value_heads": 3}, "does not divide n_heads=4"),
        ({"rotary_base": 5}, 'rotary_base needs positional_embedding_type="rotary"'),
        ({"rotary_dim": 2}, "rotary_dim needs"),
        ({**ROTARY, "rotary_dim": 6}, "at most d_head=4"),
        ({**ROTARY, "rotary_dim": 3}, "must be even"),
        ({"use_logn_attn": True, "train_seq_length": 4}, "use_logn_attn needs positional_embedding_type"),
        ({**ROTARY, "use_logn_attn": True}, "need train_seq_length"),
        ({**ROTARY, "use_dynamic_ntk_rope": True}, "need train_seq_length"),
        ({**ROTARY, "yarn_factor": 2.0}, "yarn_factor has no effect without use_yarn_rope=True"),
        ({**ROTARY, "NTK_by_parts_factor": 2.0}, "has no effect without use_NTK_by_parts_rope=True"),
        ({**YARN, "rotary_scaling_factor": 2.0}, "Only one way to extend"),
        ({**YARN, "use_NTK_by_parts_rope": True}, "Only one way to extend"),
        ({"use_attn_in": True, "use_split_qkv_input": True}, "cannot be had together"),
        ({"uses_rms_norm": True}, "contradicts normalization_type='LN'"),
        ({"use_attn_scale": False, "attn_scale": 3.0}, "contradicts attn_scale=3.0"),
        ({"attn_only": True, "gated_mlp": True}, "gated_mlp has no effect with attn_only=True"),
        ({"attn_only": True, "use_hook_mlp_in": True}, "use_hook_mlp_in has no effect"),
        ({"attn_only": True, "parallel_attn_mlp": True}, "parallel_attn_mlp has no effect"),
        ({**EXPERTS, "act_fn": "solu_ln"}, "no form with experts"),
        ({"normalization_type": None, "final_rms": True}, "final_rms has no effect with normalization_type=None"),
        ({"normalization_type": None, "eps": 1e-3}, "eps has no effect"),
        ({"normalization_type": None, "use_normalization_before_and_after": True}, "has no effect"),
        ({"attn_scores_soft_cap": 0.0}, "attn_scores_soft_cap=0.0 must be positive"),
        ({"output_logits_soft_cap": -3.0}, "must be positive"),
        ({"clip_qkv": 0.0}, "clip_qkv=0.0 must be positive"),
        ({"act_fn": "gelu_neww"}, "gelu_new"),
        ({"positional_embedding_type": "learned"}, "'standard', 'rotary'"),
        ({"normalization_type": "layer"}, "is none of None, 'LN'"),
        ({"attention_dir": "both"}, "'causal', 'bidirectional'"),
        ({"init_mode": "zeros"}, "'gpt2'"),
        ({"dtype": torch.int32}, "no floating-point dtype"),
        ({"dtype": "float33"}, "no floating-point dtype"),
        ({"n_layers": -1}, "n_layers=-1 must be positive"),
        ({"n_ctx": 0}, "n_ctx=0 must be positive"),
        ({"d_vocab": 0}, "d_vocab=0 must be positive"),
        ({"n_heads": -1, "d_model": 18}, "say how many heads with n_heads"),
        ({"n_devices": 2}, r"n_devices=2, but torch sees \d+ CUDA devices"),
    ],
)
def test_contradictions_are_refused(given, message):
    if "n_devices" in given and torch.cuda.device_count() > 1:
        pytest.skip("there are as many")
    with unchecked(), pytest.raises(ConfigurationError, match=message):
        HookedTransformerConfig.from_dict({**BASE, **given})


def test_an_unknown_field_says_the_nearest():
    with pytest.raises(ConfigurationError, match=r"no field 'use_attn_results'\. Nearest: use_attn_result"):
        HookedTransformerConfig.from_dict({**BASE, "use_attn_results": True})
    with pytest.raises(TypeError, match="use_attn_results"):
        HookedTransformerConfig(**BASE, use_attn_results=True)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_dict_and_back(kind):
    cfg = HookedTransformerConfig.from_dict({**BASE, **KINDS[kind]})
    again = HookedTransformerConfig.from_dict(cfg.to_dict())
    assert again == cfg
    assert again.to_dict() == cfg.to_dict()
    assert HookedTransformerConfig.unwrap(cfg) is cfg
    assert HookedTransformerConfig.unwrap(cfg.to_dict()) == cfg
    assert HookedTransformerConfig.unify(cfg) is cfg
    assert toy(kind).cfg.to_dict() == cfg.to_dict()
    assert copy.deepcopy(cfg) == cfg


def test_fields_that_follow_from_others():
    cfg = HookedTransformerConfig(d_model=64, d_head=16, n_layers=2, n_ctx=8, d_vocab=9, dtype=torch.bfloat16, **ROTARY)
    with unchecked():
        assert HookedTransformerConfig(**BASE, dtype="torch.float16").dtype == torch.float16
    assert (cfg.n_heads, cfg.d_mlp, cfg.d_vocab_out, cfg.rotary_dim, cfg.attn_scale) == (4, 256, 9, 16, 4.0)
    assert cfg.dtype == torch.bfloat16
    assert cfg.device is not None
    assert cfg.initializer_range == pytest.approx(0.1)
    assert cfg.n_params == 2 * (4 * 4 * 64 * 16 + 2 * 64 * 256)
    assert HookedTransformerConfig(**BASE, init_mode="muP").initializer_range == 1
    assert HookedTransformerConfig(**BASE, **ROTARY, uses_rms_norm=True).uses_rms_norm


def test_what_both_interfaces_share():
    cfg = TransformerLensConfig(d_model=8, d_head=4, n_layers=1, n_ctx=8)
    assert TransformerLensConfig.from_dict(cfg.to_dict()) == cfg
    assert isinstance(HookedTransformerConfig(**BASE), TransformerLensConfig)


def test_weights_may_be_left_alone():
    torch.manual_seed(0)
    model = HookedTransformer({**BASE, "init_weights": False})
    state = torch.get_rng_state()
    HookedTransformer({**BASE, "init_weights": False})
    assert torch.equal(torch.get_rng_state(), state)
    model.init_weights()
    assert model.W_Q.std() > 0


def test_seeding_everywhere_happens_on_request_only():
    cfg = HookedTransformerConfig(**BASE, seed=3)
    cfg.set_seed_everywhere(3)
    drawn = torch.rand(2)
    cfg.set_seed_everywhere(3)
    assert torch.equal(torch.rand(2), drawn)
