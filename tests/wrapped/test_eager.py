"""Eager attention for good."""

import pytest
from torch import nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, LlamaConfig, LlamaForCausalLM

from transformer_lens.errors import ConfigurationError
from transformer_lens.wrapped.eager import force_eager_attention


def llama():
    config = LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        attn_implementation="sdpa",
    )  # fmt: skip
    return LlamaForCausalLM(config)


def test_the_layers_of_a_model_read_it():
    model = llama()
    assert model.model.layers[0].self_attn.config._attn_implementation == "sdpa"
    force_eager_attention(model)
    assert model.model.layers[0].self_attn.config._attn_implementation == "eager"


def test_copies_that_layers_keep_are_set_when_asked():
    model = llama()
    attention = model.model.layers[0].self_attn
    attention.config = LlamaConfig(attn_implementation="sdpa")
    force_eager_attention(model)
    assert (model.config._attn_implementation, attention.config._attn_implementation) == ("eager", "sdpa")
    force_eager_attention(model, per_layer=True)
    assert attention.config._attn_implementation == "eager"


def test_configurations_in_configurations_are_set():
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config={**small, "vocab_size": 20, "head_dim": 4, "num_key_value_heads": 1},
        vision_config={**small, "image_size": 8, "patch_size": 4},
        attn_implementation="sdpa",
    )
    model = Gemma3ForConditionalGeneration(config)
    force_eager_attention(model)
    kept = (model.config, model.config.text_config, model.config.vision_config)
    assert [part._attn_implementation for part in kept] == ["eager"] * 3


def test_what_has_none_is_refused():
    for thing in (nn.Linear(1, 1), None):
        with pytest.raises(ConfigurationError, match=f"A {type(thing).__name__} holds no transformers model"):
            force_eager_attention(thing)
