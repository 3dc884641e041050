"""Families whose transformers code lives in their repositories. That code is never run: these specs stand in for it."""

from __future__ import annotations

from typing import Any

from transformer_lens.specs.axes import UP, embeddings, fused_in_blocks, norm, one
from transformer_lens.specs.gpt import GPT2
from transformer_lens.specs.reading import HFConfig, UnsupportedModelError
from transformer_lens.specs.spec import Part, Spec, Weight

_H = "transformer.h.{layer}"
_BLOCK = "blocks.{layer}."


def _qwen(config: HFConfig) -> dict[str, Any]:
    if config["rotary_pct"] != 1.0:
        raise UnsupportedModelError(f"Qwen 1 with rotary_pct={config['rotary_pct']} is not known here.")
    logn = bool(config["use_logn_attn"])
    return {
        "d_mlp": config["intermediate_size"] // 2,  # said of gate and input together
        "n_ctx": config["seq_length"],
        "use_dynamic_ntk_rope": bool(config["use_dynamic_ntk"]),
        "use_logn_attn": logn,
        "train_seq_length": config["seq_length"] if logn or config["use_dynamic_ntk"] else None,
    }


QWEN = Spec(
    name="Qwen 1",
    model_types=("qwen",),
    prefix="transformer.",
    same={
        "d_model": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "d_head": "kv_channels",
        "d_vocab": "vocab_size",
        "eps": "layer_norm_epsilon",
        "rotary_base": "rotary_emb_base",
    },
    fixed={
        "normalization_type": "RMS",
        "gated_mlp": True,
        "act_fn": "silu",
        "positional_embedding_type": "rotary",
        "default_prepend_bos": False,
        "tokenizer_prepends_bos": True,
    },
    rules=(_qwen,),
    defaults={
        "vocab_size": 151936,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "kv_channels": 128,
        "emb_dropout_prob": 0.0,
        "attn_dropout_prob": 0.0,
        "layer_norm_epsilon": 1e-6,
        "max_position_embeddings": 8192,
        "scale_attn_weights": True,
        "rotary_pct": 1.0,
        "rotary_emb_base": 10000,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "use_flash_attn": "auto",
        "intermediate_size": 22016,
        "no_bias": True,
        "tie_word_embeddings": False,
        "use_cache_quantization": False,
        "use_cache_kernel": False,
        "softmax_in_fp32": False,
        "seq_length": 8192,
    },
    harmless=frozenset(
        {
            "bf16",
            "fp16",
            "fp32",
            "onnx_safe",
            "tokenizer_type",
            "emb_dropout_prob",
            "attn_dropout_prob",
            "max_position_embeddings",
            "use_flash_attn",
            "use_cache_quantization",
            "use_cache_kernel",
            "softmax_in_fp32",
            "use_dynamic_ntk",
            "no_bias",
        }
    ),
    refuses={"scale_attn_weights": ((True,), "unscaled scores")},
    ignored=(r"\.rotary_emb\.inv_freq$",),
    weights=(
        *embeddings("transformer.wte.weight"),
        *norm(f"{_H}.ln_1", f"{_BLOCK}ln1"),
        *norm(f"{_H}.ln_2", f"{_BLOCK}ln2"),
        *norm("transformer.ln_f", "ln_final"),
        *fused_in_blocks(f"{_H}.attn.c_attn", bias=True),
        one(f"{_H}.attn.c_proj.weight", f"{_BLOCK}attn.W_O", "d_model (head d_head) -> head d_head d_model"),
        one(f"{_H}.mlp.w1.weight", f"{_BLOCK}mlp.W_in", UP),
        one(f"{_H}.mlp.w2.weight", f"{_BLOCK}mlp.W_gate", UP),
        one(f"{_H}.mlp.c_proj.weight", f"{_BLOCK}mlp.W_out", "d_model d_mlp -> d_mlp d_model"),
    ),
    notes="transformers has no class for it: no way back",
)


def _one_key_head(config: HFConfig) -> dict[str, Any]:
    if config["attention_head_type"] != "multiquery":
        raise UnsupportedModelError(f"attention_head_type={config['attention_head_type']!r} is not known here.")
    return {"n_key_value_heads": 1}


_KV = tuple(Part(f"{_BLOCK}attn.W_{n}", "1 kv d_head d_model -> kv d_model d_head") for n in "KV")
_KV_BIAS = tuple(Part(f"{_BLOCK}attn.b_{n}", "1 kv d_head -> kv d_head") for n in "KV")
SANTACODER = GPT2.but(
    name="SantaCoder (its own repository)",
    only_architectures=("GPT2LMHeadCustomModel",),
    architecture=None,
    rules=(*GPT2.rules, _one_key_head),
    weights=(
        *(weight for weight in GPT2.weights if ".c_attn." not in weight.hf),
        one(f"{_H}.attn.q_attn.weight", f"{_BLOCK}attn.W_Q", "d_model (head d_head) -> head d_model d_head"),
        one(f"{_H}.attn.q_attn.bias", f"{_BLOCK}attn.b_Q", "(head d_head) -> head d_head"),
        Weight(f"{_H}.attn.kv_attn.weight", _KV, first="d_model (two kv d_head) -> two kv d_head d_model"),
        Weight(f"{_H}.attn.kv_attn.bias", _KV_BIAS, first="(two kv d_head) -> two kv d_head"),
    ),
    notes="one key head; its code lives in the repository: no way back",
)
