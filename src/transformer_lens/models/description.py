"""What a wrapped model and its tokenizer say of themselves, in the fields of a TransformerBridgeConfig."""

from __future__ import annotations

from typing import Any

from transformer_lens.config import HookedTransformerConfig, TransformerBridgeConfig
from transformer_lens.models.architectures import classify_architecture
from transformer_lens.specs.per_layer import per_layer_attr_names, per_layer_values
from transformer_lens.text import TextCodec
from transformer_lens.wrapped.anatomy import Anatomy


def describe(cfg: HookedTransformerConfig, model: Any, anatomy: Anatomy) -> None:
    """Fill in what a model's class, its configuration and the places of its parts say.

    Args:
        cfg: filled.
        model: the transformers model.
        anatomy: where its parts are.
    """
    assert isinstance(cfg, TransformerBridgeConfig)
    kind = classify_architecture(type(model).__name__)
    cfg.is_multimodal, cfg.is_audio_model = kind == "multimodal", kind == "audio"
    cfg.is_visual_model = kind == "vision"
    cfg.attn_implementation = model.config._attn_implementation
    cfg.is_stateful = any(anatomy.layer(layer).mixer is not None for layer in range(cfg.n_layers))
    embed, final = anatomy.rule("embed.W_E"), anatomy.rule("ln_final.w")
    cfg.scale_embedding = anatomy.ends.embed_times != 1 or (embed is not None and anatomy.factor(embed) != 1)
    cfg.rmsnorm_uses_offset = final is not None and final.offset != 0
    text = model.config.get_text_config()
    for ours, theirs in (("per_layer_head_dim", "head_dim"), ("per_layer_num_key_value_heads", "num_key_value_heads")):
        if theirs in per_layer_attr_names(text):
            setattr(cfg, ours, per_layer_values(text, theirs))
    fields = model.config.to_dict()
    seen = fields.get("vision_config") or {}
    cfg.vision_hidden_size, cfg.vision_num_layers = seen.get("hidden_size"), seen.get("num_hidden_layers")
    cfg.vision_num_heads, cfg.mm_tokens_per_image = seen.get("num_attention_heads"), fields.get("mm_tokens_per_image")


def describe_tokenizer(cfg: TransformerBridgeConfig, codec: TextCodec, tokenizer: Any) -> None:
    """Fill in what a tokenizer does by itself: special tokens around every text, and the side of padding."""
    cfg.tokenizer_prepends_bos, cfg.tokenizer_appends_eos = bool(codec.frame.prefix), bool(codec.frame.suffix)
    cfg.default_padding_side = tokenizer.padding_side


def detect_tokenizer_bos_eos(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a tokenizer begins each text with a special token by itself, and whether it ends it with one.

    Example:
        >>> from transformer_lens import demo
        >>> detect_tokenizer_bos_eos(demo.tokenizer())
        (False, False)
    """
    frame = TextCodec(tokenizer).frame
    return bool(frame.prefix), bool(frame.suffix)


def configure_tokenizer(tokenizer: Any, cfg: TransformerBridgeConfig) -> Any:
    """The tokenizer itself; the configuration then says what it does by itself, as one of a booted bridge does.

    Example:
        >>> from transformer_lens import demo
        >>> cfg = TransformerBridgeConfig(d_model=8, d_head=4, n_layers=1, n_ctx=6)
        >>> tokenizer = demo.tokenizer()
        >>> configure_tokenizer(tokenizer, cfg) is tokenizer, cfg.tokenizer_prepends_bos
        (True, False)
    """
    describe_tokenizer(cfg, TextCodec(tokenizer), tokenizer)
    return tokenizer


def skip_tokenizer_for_modality(cfg: TransformerBridgeConfig) -> bool:
    """Whether a model takes no text at all: it hears or sees.

    Example:
        >>> cfg = TransformerBridgeConfig(d_model=8, d_head=4, n_layers=1, n_ctx=6, is_audio_model=True)
        >>> skip_tokenizer_for_modality(cfg)
        True
    """
    return cfg.is_audio_model or cfg.is_visual_model
