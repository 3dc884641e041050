"""Configurations whose fields differ between layers."""

import pytest
from transformers import Gemma4TextConfig, GPT2Config

from transformer_lens.specs.per_layer import (
    HetSafeConfigView,
    het_safe_view,
    majority_value,
    per_layer_attr_names,
    per_layer_values,
    safe_config_get,
)


@pytest.fixture
def mixed():
    return Gemma4TextConfig(num_hidden_layers=6, hidden_size=16, num_attention_heads=2, num_key_value_heads=2)


def test_a_field_that_differs_is_read_layer_by_layer(mixed):
    with pytest.raises(RuntimeError, match="per-layer attribute"):
        _ = mixed.head_dim
    assert per_layer_attr_names(mixed) == {"head_dim"}
    assert per_layer_values(mixed, "head_dim") == [256, 256, 256, 256, 256, 512]
    assert per_layer_values(mixed, "hidden_size") == [16] * 6
    assert safe_config_get(mixed, "head_dim") == 256


def test_others_are_as_they_are():
    config = GPT2Config()
    assert per_layer_attr_names(config) == per_layer_attr_names(None) == frozenset()
    assert per_layer_values(config, "n_embd") == [768] * 12
    assert (safe_config_get(config, "n_embd"), safe_config_get(config, "no"), safe_config_get(None, "a", 5)) == (
        768,
        None,
        5,
    )
    assert het_safe_view(config) is config


def test_the_most_frequent_value_the_earliest_of_equals():
    assert (majority_value([1, 2, 2]), majority_value([1, 2]), majority_value([{"a": 1}, {"a": 2}, {"a": 2}])) == (
        2,
        1,
        {"a": 2},
    )
    with pytest.raises(ValueError, match="no values"):
        majority_value([])


def test_a_view_reads_and_does_not_write(mixed):
    view = het_safe_view(mixed)
    assert isinstance(view, HetSafeConfigView)
    assert (view.hidden_size, view.num_key_value_heads, view.head_dim, hasattr(view, "zork")) == (16, 2, 256, False)
    assert view.to_dict()["hidden_size"] == 16
    with pytest.raises(AttributeError, match="only reads; set 'hidden_size' on the configuration itself"):
        view.hidden_size = 3
