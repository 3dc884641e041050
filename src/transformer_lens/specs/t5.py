"""T5: an encoder and a decoder of the same depth, relative positions, RMS norms, no biases."""

from __future__ import annotations

from typing import Any

from transformer_lens.specs.axes import DOWN, OUT, QUERY, UP, VECTOR, embeddings, one
from transformer_lens.specs.reading import HFConfig, UnsupportedModelError
from transformer_lens.specs.rules import activation
from transformer_lens.specs.spec import Spec, Weight


def _gated(config: HFConfig) -> bool:
    return bool(config["is_gated_act"])


def _plain(config: HFConfig) -> bool:
    return not _gated(config)


def _same_depth(config: HFConfig) -> dict[str, Any]:
    layers, of_decoder = config["num_layers"], config.get("num_decoder_layers")
    if of_decoder not in (None, layers):
        raise UnsupportedModelError(
            f"{layers} layers in the encoder, {of_decoder} in the decoder: HookedEncoderDecoder has as many in both. "
            "TransformerBridge takes it: TransformerBridge.boot_transformers."
        )
    return {}


def _text(config: HFConfig) -> dict[str, Any]:
    start = config.get("decoder_start_token_id")
    return {
        # NOTE: positions are relative, so this is how long texts were in training, and no limit.
        "n_ctx": config.get("n_positions") or 512,
        "decoder_start_token_id": config.get("pad_token_id") if start is None else start,
    }


def _mlp(config: HFConfig) -> dict[str, Any]:
    # NOTE: dense_act_fn says it too; feed_forward_proj is what checkpoints set.
    config.get("feed_forward_proj")
    return {"gated_mlp": _gated(config)}


def _scaled_logits(config: HFConfig) -> dict[str, Any]:
    # NOTE: transformers 5 ties embeddings always, and keeps in this field whether T5 1.0 (scaled) or 1.1 is meant; mT5
    # is 1.1.
    scaled = config.get("scale_decoder_outputs", config.model_type == "t5")
    return {"tie_word_embeddings": bool(scaled)}


def _attention(hf: str, ours: str) -> tuple[Weight, ...]:
    axes = {"q": QUERY, "k": QUERY, "v": QUERY, "o": OUT}
    return tuple(one(f"{hf}.{name}.weight", f"{ours}.W_{name.upper()}", axes[name]) for name in axes)


def _norm(hf: str, ours: str) -> Weight:
    return one(f"{hf}.weight", f"{ours}.w", VECTOR)


def _dense(hf: str, ours: str) -> tuple[Weight, ...]:
    return (
        one(f"{hf}.wi.weight", f"{ours}.W_in", UP, when=_plain),
        one(f"{hf}.wi_0.weight", f"{ours}.W_gate", UP, when=_gated),
        one(f"{hf}.wi_1.weight", f"{ours}.W_in", UP, when=_gated),
        one(f"{hf}.wo.weight", f"{ours}.W_out", DOWN),
    )


def _stack(stack: str) -> tuple[Weight, ...]:
    layer, ours = f"{stack}.block.{{layer}}.layer", f"{stack}.{{layer}}"
    table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    last = 2 if stack == "decoder" else 1
    reads: tuple[Weight, ...] = ()
    if stack == "decoder":
        reads = (
            *_attention(f"{layer}.1.EncDecAttention", f"{ours}.cross_attn"),
            _norm(f"{layer}.1.layer_norm", f"{ours}.ln2"),
        )
    return (
        one(table, f"{stack}.0.attn.rel_pos_bias.weight", "bucket head -> bucket head"),
        *_attention(f"{layer}.0.SelfAttention", f"{ours}.attn"),
        _norm(f"{layer}.0.layer_norm", f"{ours}.ln1"),
        *reads,
        *_dense(f"{layer}.{last}.DenseReluDense", f"{ours}.mlp"),
        _norm(f"{layer}.{last}.layer_norm", f"{ours}.ln{last + 1}"),
        _norm(f"{stack}.final_layer_norm", f"{stack}_final_ln"),
    )


T5 = Spec(
    name="T5",
    holder="HookedEncoderDecoder",
    model_types=("t5",),
    architecture="T5ForConditionalGeneration",
    prefix="",
    same={
        "d_model": "d_model",
        "n_layers": "num_layers",
        "d_head": "d_kv",
        "n_heads": "num_heads",
        "d_mlp": "d_ff",
        "d_vocab": "vocab_size",
        "eps": "layer_norm_epsilon",
        "relative_attention_num_buckets": "relative_attention_num_buckets",
        "relative_attention_max_distance": "relative_attention_max_distance",
    },
    fixed={
        "normalization_type": "RMS",
        "positional_embedding_type": "relative_positional_bias",
        "attention_dir": "bidirectional",
        "use_attn_scale": False,
    },
    rules=(_same_depth, _text, _mlp, activation("dense_act_fn"), _scaled_logits),
    harmless=frozenset({"dropout_rate", "initializer_factor", "output_past"}),
    ignored=(
        r"^(encoder|decoder)\.embed_tokens\.weight$",  # shared.weight again
        r"EncDecAttention\.relative_attention_bias\.weight$",  # in the checkpoints of 2019; unused
    ),
    weights=(*embeddings("shared.weight"), *_stack("encoder"), *_stack("decoder")),
    notes="held by HookedEncoderDecoder; also T5 1.1 and Flan-T5",
)
MT5 = T5.but(
    name="mT5", model_types=("mt5",), architecture="MT5ForConditionalGeneration", notes="held by HookedEncoderDecoder"
)
