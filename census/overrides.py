"""What the general rule of small sizes does not know: fields of single types."""

from __future__ import annotations

from typing import Any

WORDS = 100

_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}

_QWEN4 = {
    "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
    "indexer_compress_ratio": 2, "hc_lowrank": 8, "ngram_vocab_size_base": 100, "split_ngram_parts": 1,
}  # fmt: skip

# How many rotated pairs go with each axis of an image, where the class has a table of its own for its large heads.
_AXES = {"text_config": {"rope_parameters": {"mrope_section": [2, 1, 1]}}}

# The part of a configuration that describes the model which AutoModelForCausalLM builds, where transformers itself
# takes the whole for it and fails.
PARTS = {
    "musicgen": ("decoder", "MusicgenForCausalLM"),
    "musicgen_melody": ("decoder", "MusicgenMelodyForCausalLM"),
}

OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        "encoder_config": {"hidden_size_global": 32, "vocab_size": 260},
        "decoder_config": {"hidden_size_global": 32, "vocab_size": 260}, "patcher_config": {"vocab_size": 260},
        "vocab_size": 260, "encoder_hash_byte_group_vocab": 50,
    },
    "chameleon": {"vocabulary_map": {"<image>": 3}},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}, "num_key_value_heads": 2},
    "deepseek_v2": {"n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "deepseek_ocr2": {
        "text_config": {
            "mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
            "head_dim": 8,
        }
    },
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "emu3": {"vocabulary_map": {"<image>": 3}},
    "falcon_h1": {"mamba_d_ssm": 32},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0}},
    "gemma3n_text": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "activation_sparsity_pattern": None},
    "glm46v": _AXES,
    "glm4v": _AXES,
    "glm4v_moe": {"text_config": {"rope_parameters": {"mrope_section": [1, 1, 0]}}},
    "ernie4_5_vl_moe": {"text_config": {"rope_parameters": {"mrope_section": [1, 1, 2]}}},
    "glm_ocr": _AXES,
    "glmga": _AXES,
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "hunyuan_vl": {"text_config": {"head_dim": 8, "rope_parameters": {"mrope_section": [1, 1, 1, 1]}}},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"qk_head_dim": 16},
    "mamba2": {"expand": 1, "num_heads": 4, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "mistral4": {"head_dim": 16, "qk_head_dim": 16},
    "molmo2": {"adapter_config": {"vision_feature_layer": [1, 0]}},
    "nemotron": {"num_key_value_heads": 2},
    "paddleocr_vl": _AXES,
    "qwen2_5_omni_thinker": _AXES,
    "qwen2_5_vl": _AXES,
    "qwen2_vl": _AXES,
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "is_decoder": True, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "attention_head_size": 8,
        "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "feed_forward_size": 48, "num_buckets": 4,
        "hash_seed": 0,
    },
    "rwkv": {"attention_hidden_size": 32, "context_length": 64},
    "step3p7": {"text_config": {"sliding_window": 6}},
    "unlimited_ocr": {"text_config": {"num_key_value_heads": 4}},
    "xlstm": {"chunk_size": 8, "ffn_round_up_to_multiple_of": 8},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "zamba": {
        "num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4,
    },
    "zamba2": {
        "num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4, "n_mamba_heads": 4,
        "mamba_headdim": 8, "kv_channels": 8, "adapter_rank": 4,
    },
}  # fmt: skip
