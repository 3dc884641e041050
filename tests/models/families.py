"""A tiny random transformers model of each family: one row each, with sizes at which its mechanisms bite."""

import copy
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": 32,
}  # fmt: skip
GQA = {**SMALL, "num_key_value_heads": 2}
OLD = {"vocab_size": 61, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 32}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 8}
LONG = {"rope_type": "longrope", "rope_theta": 500.0, "short_factor": [1.0, 1.5, 2.0, 2.5],
        "long_factor": [1.0, 4.0, 9.0, 16.0]}  # fmt: skip
PARTIAL = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
WINDOW = {"sliding_window": 4, "layer_types": MIXED}
TWO_BASES = {"sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
             "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}  # fmt: skip
MULTIPLIERS = {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.3,
               "logits_scaling": 2.5}  # fmt: skip
FALCON = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
          "ffn_hidden_size": 40}  # fmt: skip

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {**OLD, "n_inner": 40}),
    "gpt2 (scores by layer)": ("gpt2", {
        **OLD, "scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True,
    }),
    "gpt_neo": ("gpt_neo", {
        "vocab_size": 61, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "max_position_embeddings": 32,
        "window_size": 4, "attention_types": [[["global", "local", "local"], 1]],
    }),
    "gptj": ("gptj", {**OLD, "rotary_dim": 4}),
    "codegen": ("codegen", {**OLD, "n_head": 8, "n_embd": 64, "rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", {**SMALL, "rope_parameters": PARTIAL}),
    "gpt_neox (sequential)": ("gpt_neox", {**SMALL, "rope_parameters": PARTIAL, "use_parallel_residual": False}),
    "opt": ("opt", {
        "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 40,
        "max_position_embeddings": 32, "word_embed_proj_dim": 32, "pad_token_id": 0,
    }),
    "biogpt": ("biogpt", {**SMALL, "scale_embedding": True}),
    "xglm": ("xglm", {
        "vocab_size": 61, "d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 40,
        "max_position_embeddings": 32, "scale_embedding": True,
    }),
    "llama": ("llama", {**GQA, "head_dim": 6}),
    "llama (linear rope)": ("llama", {**GQA, "rope_parameters": LINEAR, "attention_bias": True}),
    "llama (llama3 rope)": ("llama", {**GQA, "rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama (yarn)": ("llama", {**GQA, "rope_parameters": YARN}),
    "llama (biases in the gate)": ("llama", {**GQA, "mlp_bias": True, "attention_bias": True}),
    "mistral": ("mistral", {**GQA, "sliding_window": 4, "head_dim": 10}),
    "qwen2": ("qwen2", {**GQA, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("qwen3", {**GQA, "head_dim": 6}),
    "phi3": ("phi3", {**GQA, "sliding_window": 4}),
    "phi3 (longrope, short)": ("phi3", {**GQA, "original_max_position_embeddings": 16, "rope_parameters": LONG}),
    "phi3 (longrope, long)": ("phi3", {**GQA, "original_max_position_embeddings": 8, "rope_parameters": LONG}),
    "gemma": ("gemma", {**GQA, "head_dim": 6}),
    "gemma2": ("gemma2", {**GQA, **WINDOW, "head_dim": 6, "query_pre_attn_scalar": 9, "final_logit_softcapping": 3.0,
                          "attn_logit_softcapping": 2.0}),
    "gemma3": ("gemma3_text", {**GQA, **WINDOW, "head_dim": 6, "query_pre_attn_scalar": 9,
                               "rope_parameters": TWO_BASES}),
    "bloom": ("bloom", {"vocab_size": 61, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "falcon (7b)": ("falcon", {**FALCON, "multi_query": True}),
    "falcon (40b)": ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon (sequential)": ("falcon", {**FALCON, "multi_query": False, "parallel_attn": False, "bias": True}),
    "mpt": ("mpt", {"vocab_size": 61, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 32}),
    "mpt (six heads)": ("mpt", {"vocab_size": 61, "d_model": 48, "n_layers": 3, "n_heads": 6, "max_seq_len": 32}),
    "gpt_bigcode": ("gpt_bigcode", {**OLD, "multi_query": True}),
    "gpt_bigcode (all heads)": ("gpt_bigcode", {**OLD, "multi_query": False}),
    "starcoder2": ("starcoder2", {**GQA, "sliding_window": 4}),
    "phi": ("phi", {**SMALL, "rope_parameters": PARTIAL}),
    "phi (norms of heads)": ("phi", {**SMALL, "rope_parameters": PARTIAL, "qk_layernorm": True}),
    "persimmon": ("persimmon", {**SMALL, "rope_parameters": PARTIAL}),
    "olmo": ("olmo", {**GQA, "clip_qkv": 0.8}),
    "stablelm": ("stablelm", {**GQA, "rope_parameters": PARTIAL, "use_qkv_bias": True}),
    "stablelm (parallel)": ("stablelm", {**GQA, "rope_parameters": PARTIAL, "use_parallel_residual": True}),
    "cohere": ("cohere", {**GQA, "logit_scale": 0.25}),
    "cohere2": ("cohere2", {**GQA, **WINDOW, "logit_scale": 0.25, "head_dim": 8}),
    "nemotron": ("nemotron", {**GQA, "rope_parameters": PARTIAL, "head_dim": 8}),
    "ministral": ("ministral", {**GQA, **WINDOW, "head_dim": 8}),
    "olmo2": ("olmo2", GQA),
    "olmo3": ("olmo3", {**GQA, **WINDOW, "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}, "full_attention": YARN}}),
    "apertus": ("apertus", GQA),
    "arcee": ("arcee", {**GQA, "head_dim": 8}),
    "arcee (biases)": ("arcee", {**GQA, "mlp_bias": True}),
    "cwm": ("cwm", {**GQA, **WINDOW, "head_dim": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "ernie4_5": ("ernie4_5", {**GQA, "head_dim": 8}),
    "ernie4_5 (biases)": ("ernie4_5", {**GQA, "head_dim": 8, "use_bias": True}),
    "exaone4": ("exaone4", {**GQA, **WINDOW, "head_dim": 8}),
    "glm": ("glm", {**GQA, "head_dim": 8, "attention_bias": True, "rope_parameters": PARTIAL}),
    "glm4": ("glm4", {**GQA, "head_dim": 8, "attention_bias": True, "rope_parameters": PARTIAL}),
    "granite": ("granite", {**GQA, **MULTIPLIERS}),
    "granite (biases)": ("granite", {**GQA, **MULTIPLIERS, "mlp_bias": True, "attention_bias": True}),
    "helium": ("helium", {**GQA, "head_dim": 8}),
    "seed_oss": ("seed_oss", {**GQA, "head_dim": 8, "attention_out_bias": True}),
    "internlm3": ("internlm3", {**GQA, "head_dim": 8, "qkv_bias": True, "bias": True}),
    "iquestcoder": ("iquestcoder", {**GQA, "head_dim": 6}),
    "hyperclovax": ("hyperclovax", {**GQA, **MULTIPLIERS, "head_dim": 8, "residual_multiplier": 1.0}),
    "hyperclovax (no post-norm)": ("hyperclovax", {**GQA, **MULTIPLIERS, "head_dim": 8, "use_post_norm": False}),
    "jais2": ("jais2", {**GQA, "head_dim": 8}),
    "vaultgemma": ("vaultgemma", {**GQA, **WINDOW, "head_dim": 6, "query_pre_attn_scalar": 9,
                                  "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}),
    "smollm3": ("smollm3", {**GQA, "no_rope_layers": [1, 0, 1]}),
    "qwen3_moe": ("qwen3_moe", {**GQA, **EXPERTS, "head_dim": 8, "num_experts": 4, "norm_topk_prob": True}),
    "mellum": ("mellum", {**GQA, **EXPERTS, **WINDOW, "head_dim": 8, "num_local_experts": 4,
                          "rope_parameters": TWO_BASES}),
    "qwen2_moe": ("qwen2_moe", {
        **GQA, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 20,
        "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1,
    }),
    "olmoe": ("olmoe", {**GQA, "num_experts_per_tok": 2, "num_experts": 4, "clip_qkv": 1.0}),
    "flex_olmo": ("flex_olmo", {**GQA, "num_experts_per_tok": 2, "num_experts": 4}),
    "granitemoe": ("granitemoe", {**GQA, **MULTIPLIERS, "num_experts_per_tok": 2, "num_local_experts": 4}),
    "mixtral": ("mixtral", {**GQA, "num_experts_per_tok": 2, "num_local_experts": 4, "sliding_window": 4}),
    "gpt_oss": ("gpt_oss", {**GQA, **WINDOW, "head_dim": 6, "num_experts_per_tok": 2, "num_local_experts": 4}),
}  # fmt: skip


@cache
def hf_model(row: str, seed: int = 0) -> PreTrainedModel:
    """The model of this row, every parameter drawn at random; the same for the same seed."""
    model_type, fields = ROWS[row]
    config = CONFIG_MAPPING[model_type](**copy.deepcopy({**IDS, **fields}))  # some write into what they are given
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    randomise(model, seed)
    return model


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter anew: matrices by their width, norm weights about what they begin with."""
    generator = torch.Generator().manual_seed(seed)
    added_to = model.config.model_type == "nemotron"
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            # A norm's weight begins at one, or at zero where one is added to it (Nemotron's begins at one all the same,
            # and two at every norm, with squares behind it, makes numbers that float32 no longer resolves).
            start = 0.0 if added_to and "norm" in name else parameter.mean().round()
            parameter.copy_(start + 0.3 * drawn)
        else:
            parameter.copy_(drawn / parameter.shape[-1] ** 0.5)
    model.tie_weights()


def tokens(rows: int = 3, length: int = 13) -> torch.Tensor:
    """Token ids, no padding among them."""
    return torch.randint(3, 60, (rows, length), generator=torch.Generator().manual_seed(1))
