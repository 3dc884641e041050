"""Families that are added while a program runs."""

from importlib.metadata import EntryPoint

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.errors import ConfigurationError
from transformer_lens.specs import UnsupportedModelError, added, gpt, table
from transformer_lens.specs.added import ArchitectureAdapterFactory

MINE = gpt.GPT2.but(name="My GPT", architecture="MyGPT")


def cfg(architecture):
    return TransformerBridgeConfig(d_model=8, d_head=4, n_layers=1, n_ctx=6, architecture=architecture)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for module in (table, added):
        monkeypatch.setattr(module, "ADDED", {})
    monkeypatch.setattr(added, "ADDED", table.ADDED)


@torch.no_grad()
def test_a_class_that_is_added_loads_on_both_hosts():
    ArchitectureAdapterFactory.register_adapter("MyGPT", MINE)
    assert ArchitectureAdapterFactory.select_architecture_adapter(cfg("MyGPT")) is MINE
    config = GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=20, n_positions=16, architectures=["MyGPT"])
    hf_model = GPT2LMHeadModel(config).eval()
    bridge = TransformerBridge.boot_transformers("mine", hf_model=hf_model)
    model = HookedTransformer.from_pretrained_no_processing("mine", hf_model=hf_model, device="cpu")
    assert bridge.host.anatomy.name == "My GPT"
    tokens = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(model(tokens), bridge(tokens))


def test_installed_packages_bring_some(monkeypatch):
    point = EntryPoint("TheirGPT", "transformer_lens.specs.gpt:GPTJ", added.GROUP)
    monkeypatch.setattr(added, "entry_points", lambda group: [point] if group == added.GROUP else [])
    ArchitectureAdapterFactory.discover_entry_points()
    assert ArchitectureAdapterFactory.select_architecture_adapter(cfg("TheirGPT")) is gpt.GPTJ


def test_what_is_no_family_is_refused():
    with pytest.raises(ConfigurationError, match=r"described by a transformer_lens\.specs\.Spec, and this is <class"):
        ArchitectureAdapterFactory.register_adapter("MyGPT", GPT2LMHeadModel)
    with pytest.raises(UnsupportedModelError, match=r"of class 'GPTJForCausal'\. Nearest: GPTJForCausalLM"):
        ArchitectureAdapterFactory.select_architecture_adapter(cfg("GPTJForCausal"))
