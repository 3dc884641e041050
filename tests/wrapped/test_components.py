"""The parts of a bridge by name."""

import pytest
from torch import nn

from transformer_lens import TransformerBridge
from transformer_lens.wrapped.components import (
    apply_fn_to_all_components,
    collect_all_components,
    collect_all_submodules_of_component,
    collect_components_of_block_bridge,
)

BLOCK = ["", ".ln1", ".attn", ".attn.q", ".attn.k", ".attn.v", ".attn.o", ".ln2", ".mlp", ".mlp.in", ".mlp.out"]


@pytest.fixture(scope="module")
def bridge():
    config = {"n_layers": 2, "d_model": 8, "d_head": 4, "n_ctx": 6, "d_vocab": 7, "act_fn": "gelu"}
    return TransformerBridge.boot_native(config)


def test_all_parts_are_there_and_no_hook_points(bridge):
    filled = {"mine": nn.Identity()}
    parts = collect_all_components(bridge, filled)
    assert parts is filled
    blocks = {f"blocks.{layer}{name}" for layer in range(2) for name in BLOCK}
    assert set(parts) - {"mine"} == {"embed", "pos_embed", "ln_final", "unembed"} | blocks
    assert all(parts[name] is bridge.get_submodule(name) for name in blocks)


def test_parts_of_one_block_or_of_all(bridge):
    assert set(collect_components_of_block_bridge(bridge, bridge.blocks[1], {})) == {f"blocks.1{x}" for x in BLOCK}
    assert len(collect_components_of_block_bridge(bridge, bridge.blocks, {})) == 2 * len(BLOCK)


def test_parts_of_a_part_have_its_own_names(bridge):
    assert list(collect_all_submodules_of_component(bridge, bridge.blocks[0].attn, {})) == ["q", "k", "v", "o"]
    named = collect_all_submodules_of_component(bridge, bridge.blocks[0].mlp, {}, "blocks.0.")
    assert list(named) == ["blocks.0.in", "blocks.0.out"]
    with pytest.raises(ValueError, match="This Linear is no part of the model"):
        collect_all_submodules_of_component(bridge, nn.Linear(1, 1), {})


def test_a_function_of_each_part(bridge):
    kinds = apply_fn_to_all_components(bridge, lambda part: len(list(part.parameters())))
    assert list(kinds) == list(collect_all_components(bridge, {}))
    assert apply_fn_to_all_components(bridge, lambda part: part, {"a": bridge.embed}) == {"a": bridge.embed}
    assert apply_fn_to_all_components(bridge, lambda part: part, {}) == {}
