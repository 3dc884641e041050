"""A tiny random model of any type: the default configuration of its class, with every size made small."""

from __future__ import annotations

import re
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from census.overrides import OVERRIDES, PARTS, WORDS

# Field of a configuration (a regular expression of its whole name) -> its small value. The first that fits counts.
SIZES: tuple[tuple[str, int], ...] = (
    (r"(.*_)?vocab_size(_per_layer_input)?|n_words|padded_vocab_size", WORDS),
    (r"num_(en|de)coder_layers|(en|de)coder_depth", 2),
    (r"num_key_value_heads|n_head_kv|num_kv_heads|n_kv_heads|num_key_value_groups|swa_num_key_value_heads", 2),
    (r"(.*_)?(attention|linear_key|linear_value|key|value|query)_heads|n_heads?|num_heads|(en|de)coder_heads", 4),
    (
        r"((audio|text|out)_)?hidden_size|adapter_in(put)?_(dim|size)|d_model|n_embd|dim|embed_dim|hidden_dim|emb_dim|embedding_dim|lru_width|word_embed_proj_dim|embedding_size|model_dim|width",
        32,
    ),
    (
        r"(.*_)?intermediate_(size|dim)|n_inner|d_ff|d_inner|(en|de)coder_ffn_dim|ffn_dim|mlp_dim|dff|dim_ff|(.*_)?ffn_hidden_size",
        48,
    ),
    (r"(.*_)?(q|kv|o|a|g|gate|output)_(lora|gate)_(rank|dim)|(q|kv|o)_lora_rank|q_rank|(.*_)?low_rank_dim", 16),
    (r"qk_nope_head_dim|v_head_dim|qk_rope_head_dim|head_dim|d_kv|(.*_)?head_dim|head_size|d_head|dim_head", 8),
    (r"num_(local_|routed_)?experts|n_routed_experts|moe_num_experts|num_experts_per_layer", 4),
    (r"num_experts_per_tok|moe_topk|top_k_experts|moe_k|num_experts_per_token", 2),
    (r"num_shared_experts|n_shared_experts|moe_num_shared_experts", 1),
    (r"n_group|topk_group|num_expert_groups?", 1),
    (r"first_k_dense_replace|mlp_dense_layers|num_dense_layers", 1),
    (r"(.*_)?max_(position_embeddings|source_positions|target_positions)|n_positions|n_ctx|max_seq_len", 64),
    (r"(.*_)?sliding_window|window_size|attention_window_size|attention_chunk_size|local_attention", 6),
    (r"image_size|patch_size", 8),
    (r"(mamba_)?(d_state|state_size|ssm_state_size)", 8),
    (r"mamba_n_heads|mamba_num_heads", 4),
    (r"mamba_d_head|mamba_head_dim", 8),
    (r"(mamba_)?n_groups|mamba_expand", 1),
    (r"rotary_dim", 4),
    (r"(mamba_)?chunk_size", 8),
    (r"time_step_rank|mamba_dt_rank", 4),
)
# Tables by layer number that follow from other fields; dropped, the class makes them again for fewer layers.
DROPPED = re.compile(
    r"(max|full)_window_layers|id2label|label2id|hybrid_override_pattern|per_layer_config|hybrid_layer_ids"
)
LAYER_COUNTS = re.compile(r"num_hidden_layers|num_layers|n_layers?|(en|de)coder_layers|depth|num_blocks")
TOKENS = re.compile(r".*_token_id|.*_token_index|.*_id|.*_start_token|.*_end_token")


def size_of(name: str, value: Any) -> Any:
    """The small value of one field."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return min(value, next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), value))


def shrunk(fields: dict[str, Any]) -> dict[str, Any]:
    """A configuration's fields with small sizes, nested configurations included: a layer of each kind, two at least."""
    counts = [value for name, value in fields.items() if LAYER_COUNTS.fullmatch(name) and isinstance(value, int)]
    by_layer = {name: value for name, value in fields.items() if isinstance(value, list) and len(value) in counts}
    layers = _one_of_each(by_layer, max(counts, default=0))
    small: dict[str, Any] = {}
    for name, value in fields.items():
        if DROPPED.fullmatch(name):
            continue
        if isinstance(value, dict) and (name.endswith(("config", "_configs")) or "model_type" in value):
            small[name] = shrunk(value)
        elif TOKENS.fullmatch(name) and isinstance(value, int) and not isinstance(value, bool):
            small[name] = value % WORDS
        elif LAYER_COUNTS.fullmatch(name) and isinstance(value, int) and value:
            small[name] = len(layers)
        elif name in by_layer:
            small[name] = [size_of(name, value[layer]) for layer in layers]
        else:
            small[name] = size_of(name, value)
    rope = small.get("rope_parameters")
    if rope and rope.get("mrope_section"):
        small["rope_parameters"] = {**rope, "mrope_section": _sections(small, rope)}
    if small.get("kv_lora_rank") and "num_attention_heads" in small:  # latent attention has no shared keys
        small["num_key_value_heads"] = small["num_attention_heads"]
    return small


def _sections(small: dict[str, Any], rope: dict[str, Any]) -> list[int]:
    """How many rotated pairs go with each of the three axes of an image."""
    head = small.get("head_dim") or small["hidden_size"] // small["num_attention_heads"]
    pairs = int(head * rope.get("partial_rotary_factor", 1.0)) // 2
    return [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]


def _one_of_each(by_layer: dict[str, list[Any]], count: int) -> list[int]:
    """The first layer of each kind that lists of names tell, and no fewer than two."""
    named = [kinds for kinds in by_layer.values() if kinds and all(isinstance(kind, str) for kind in kinds)]
    kinds = [tuple(kinds[layer] for kinds in named) for layer in range(count)] if named else []
    first = sorted({kind: layer for layer, kind in reversed(list(enumerate(kinds)))}.values())
    more = [layer for layer in range(max(count, 2)) if layer not in first]
    return sorted([*first, *more[: max(0, 2 - len(first))]])


def tiny_config(model_type: str) -> Any:
    """A small configuration of this type."""
    kind = transformers.CONFIG_MAPPING[model_type]
    config = kind.from_dict(_merged(shrunk(kind().to_dict()), OVERRIDES.get(model_type, {})))
    return getattr(config, PARTS[model_type][0]) if model_type in PARTS else config


def _merged(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(fields)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def tiny_model(model_type: str, auto: Any = transformers.AutoModelForCausalLM, seed: int = 0) -> PreTrainedModel:
    """A small random model of this type, in evaluation; norms and biases are random too, so that none is idle.

    Example:
        >>> tiny_model("gpt2").config.n_layer
        2
    """
    torch.manual_seed(seed)
    config = tiny_config(model_type)
    if model_type in PARTS:
        model = getattr(transformers, PARTS[model_type][1])(config).eval()
    else:
        model = auto.from_config(config, dtype=torch.float32).eval()
    randomise(model)
    return model


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Give vectors (norms, biases) random values near their own, and every matrix a scale at which it matters."""
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.ndim <= 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
        elif float(parameter.std()) < 0.05:
            parameter.normal_(0, 0.15 if parameter.shape[-1] < 4 * WORDS else 0.05)
        assert bool(torch.isfinite(parameter).all()), name
