"""A bridge's parameters and state, under transformers' names and under canonical ones."""

import copy

import pytest
import torch
from families import hf_model, tokens

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.models.bridge_module import StateDictError

FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neox", "phi3", "bloom", "opt", "gptj", "granite", "mixtral",
            "falcon (40b)"]  # fmt: skip


def bridge_over(row, seed=0):
    return TransformerBridge.boot_transformers(hf_model=copy.deepcopy(hf_model(row, seed)))


def native(row, seed=0):
    return HookedTransformer.from_pretrained_no_processing("native", hf_model=hf_model(row, seed), device="cpu")


@pytest.mark.parametrize("row", FAMILIES)
def test_parameters_are_named_once_under_either_names(row):
    bridge = bridge_over(row)
    named = list(bridge.named_parameters())
    assert len(named) == len({name for name, _ in named}) == len({id(parameter) for _, parameter in named})
    assert [id(p) for p in bridge.parameters()] == [id(p) for p in bridge.original_model.parameters()]
    ours = list(bridge.tl_named_parameters())
    assert len(ours) == len({name for name, _ in ours})
    assert bridge.tl_parameters().keys() == dict(ours).keys()
    known = {name.replace("._", "."): value for name, value in native(row).state_dict().items()}
    for name, value in ours:
        assert torch.allclose(value, known[name]), name
    assert not [name for name in known.keys() - dict(ours).keys() if ".b_" not in name and ".ln2." not in name]


@pytest.mark.parametrize("row", FAMILIES)
@torch.no_grad()
def test_a_state_is_loaded_under_any_names(row):
    other = bridge_over(row, seed=1)
    expected = other(tokens())
    for state in (other.state_dict(), other.tl_parameters(), native(row, seed=1).state_dict()):
        bridge = bridge_over(row)
        assert not torch.equal(bridge(tokens()), expected)
        loaded = bridge.load_state_dict(state)
        assert loaded == ([], [])
        assert torch.allclose(bridge(tokens()), expected, atol=1e-5)
    embeddings, *others = other.state_dict().items()
    mixed = {**dict(others), "embed.W_E": other.tl_parameters()["embed.W_E"]}
    assert "embed" in embeddings[0] or "wte" in embeddings[0]
    bridge = bridge_over(row)
    bridge.load_state_dict(mixed)
    assert torch.allclose(bridge(tokens()), expected, atol=1e-5)


@torch.no_grad()
def test_a_part_of_a_state_changes_that_part_alone():
    bridge, other = bridge_over("phi3"), bridge_over("phi3", seed=1)
    before = bridge.tl_parameters()
    before = {name: value.clone() for name, value in before.items()}
    name = "blocks.1.attn.W_K"
    with pytest.raises(StateDictError, match=r"it lacks lm_head\.weight, model\.embed_tokens\.weight, .*…"):
        bridge.load_state_dict({name: other.tl_parameters()[name]})
    missing, unexpected = bridge.load_state_dict({name: other.tl_parameters()[name]}, strict=False)
    assert "model.layers.1.self_attn.qkv_proj.weight" in missing
    assert unexpected == []
    for key, value in bridge.tl_parameters().items():
        assert torch.equal(value, other.tl_parameters()[name] if key == name else before[key]), key


def test_what_does_not_fit_is_said():
    bridge = bridge_over("gpt2")
    state = bridge.tl_parameters()
    with pytest.raises(
        StateDictError, match=r"this model has no blocks\.0\.attn\.W_QQ\. Nearest: blocks\.0\.attn\.W_Q"
    ):
        bridge.load_state_dict({**state, "blocks.0.attn.W_QQ": torch.zeros(2)})
    assert bridge.load_state_dict({"blocks.0.attn.W_QQ": torch.zeros(2)}, strict=False)[1] == ["blocks.0.attn.W_QQ"]
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.W_Q has shape"):
        bridge.load_state_dict({"blocks.0.attn.W_Q": torch.zeros(2)}, strict=False)
    with pytest.raises(StateDictError, match="canonical tensors are copied"):
        bridge.load_state_dict(state, assign=True)
    with pytest.raises(StateDictError, match=r"embed\.W_E and unembed\.W_U differ, and this model has one tensor"):
        bridge.load_state_dict({**state, "unembed.W_U": state["unembed.W_U"] + 1})
    llama = bridge_over("llama")
    state = llama.tl_parameters()
    with pytest.raises(StateDictError, match=r"no blocks\.0\.attn\.b_Q"):
        llama.load_state_dict({**state, "blocks.0.attn.b_Q": torch.ones(4, 6)})
    llama.load_state_dict({**state, "blocks.0.attn.b_Q": torch.zeros(4, 6)})


@torch.no_grad()
def test_processed_weights_of_a_hooked_transformer_fit_a_bridge_in_compatibility_mode():
    bridge, model = (
        bridge_over("gpt2"),
        HookedTransformer.from_pretrained("native", hf_model=hf_model("gpt2", 1), device="cpu"),
    )
    bridge.enable_compatibility_mode()
    bridge.load_state_dict(model.state_dict(), strict=False)
    assert torch.allclose(bridge(tokens()), model(tokens()), atol=1e-4)
