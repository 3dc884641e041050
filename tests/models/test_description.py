"""What a bridge's configuration says of its model and tokenizer."""

import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GemmaConfig,
    GemmaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from transformer_lens import TransformerBridge, demo
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.errors import ConfigurationError
from transformer_lens.models.description import (
    configure_tokenizer,
    detect_tokenizer_bos_eos,
    skip_tokenizer_for_modality,
)

SIZES = {"d_model": 8, "d_head": 4, "n_layers": 1, "n_ctx": 6}
SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
FIELDS = (
    "is_multimodal", "is_audio_model", "is_visual_model", "is_stateful", "scale_embedding", "rmsnorm_uses_offset",
    "vision_hidden_size", "vision_num_layers", "vision_num_heads",
)  # fmt: skip
HEADS = {"head_dim": 4, "num_key_value_heads": 1, "vocab_size": 20}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: GemmaForCausalLM(GemmaConfig(**SMALL, **HEADS)),
         {"scale_embedding": True, "rmsnorm_uses_offset": True}),
        (lambda: MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1)),
         {"is_stateful": True, "scale_embedding": False, "rmsnorm_uses_offset": False}),
        (lambda: Gemma3ForConditionalGeneration(Gemma3Config(
            text_config={**SMALL, **HEADS},
            vision_config={**SMALL, "hidden_size": 12, "image_size": 8, "patch_size": 4})),
         {"is_multimodal": True, "vision_hidden_size": 12, "vision_num_layers": 1, "vision_num_heads": 2}),
    ],
    ids=["gemma", "mamba", "gemma3"],
)  # fmt: skip
def test_what_a_model_says(model, said):
    cfg = TransformerBridge.boot_transformers(hf_model=model()).cfg
    assert {name: getattr(cfg, name) for name in said} == said
    assert not any(getattr(cfg, name) for name in FIELDS if name.startswith("is_") and name not in said)
    assert cfg.attn_implementation in ("sdpa", "eager")


def test_what_a_tokenizer_says():
    bridge = TransformerBridge.boot_transformers("demo", device="cpu")
    tokenizer = demo.tokenizer()
    assert detect_tokenizer_bos_eos(tokenizer) == (False, False)
    cfg = TransformerBridgeConfig(**SIZES)
    assert configure_tokenizer(tokenizer, cfg) is tokenizer
    for found in (cfg, bridge.cfg):
        assert (found.tokenizer_prepends_bos, found.tokenizer_appends_eos) == (False, False)
        assert found.default_padding_side == tokenizer.padding_side


def test_models_that_take_no_text_need_no_tokenizer():
    seen = [
        TransformerBridgeConfig(**SIZES, **more) for more in ({}, {"is_audio_model": True}, {"is_visual_model": True})
    ]
    assert [skip_tokenizer_for_modality(cfg) for cfg in seen] == [False, True, True]


def test_fields_by_position_are_in_the_old_order():
    cfg = TransformerBridgeConfig(8, 4, 1, 6, 2, 7, "GPT2LMHeadModel", True, False, "left", "mine", "gelu", 1e-6)
    assert (cfg.d_vocab, cfg.architecture, cfg.tokenizer_prepends_bos, cfg.default_padding_side) == (
        7, "GPT2LMHeadModel", True, "left",
    )  # fmt: skip
    assert (cfg.model_name, cfg.act_fn, cfg.eps, cfg.head_dim) == ("mine", "gelu", 1e-6, 4)
    with pytest.raises(TypeError, match="d_model is given twice"):
        TransformerBridgeConfig(8, 4, 1, 6, d_model=8)
    with pytest.raises(TypeError, match="fields after eps by name; got 14"):
        TransformerBridgeConfig(*[1] * 14)
    assert TransformerBridgeConfig.from_dict(cfg.to_dict()) == cfg


def test_a_native_model_refuses_what_it_cannot_compute():
    cfg = TransformerBridgeConfig(**SIZES, d_vocab=7, act_fn="gelu", qk_norm_after_rope=True)
    with pytest.raises(ConfigurationError, match="The native transformer has no qk_norm_after_rope"):
        TransformerBridge.boot_native(cfg)
    cfg.qk_norm_after_rope, cfg.attn_implementation = False, "sdpa"
    assert TransformerBridge.boot_native(cfg)(torch.tensor([[1, 2]])).shape == (1, 2, 7)
