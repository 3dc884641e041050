"""Activations recorded with transformer-lens 3.9.0, for one configuration after another."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transformer_lens import HookedTransformer

FOLDER = Path(__file__).parents[1] / "golden" / "toy"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
TOKENS = torch.from_numpy(np.load(FOLDER / "tokens.npy"))
OURS = {"unembed.hook_in", "unembed.hook_out"}  # 3.9 has no such points


def recorded_model(name):
    model = HookedTransformer(json.loads((FOLDER / f"{name}.json").read_text())["handmade"])
    model.load_state_dict(load_file(FOLDER / f"{name}.weights.safetensors"))
    return model


def check(got, wanted):
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5, check_dtype=False)


def test_there_are_recordings():
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_activations(name):
    model, recorded = recorded_model(name), load_file(FOLDER / f"{name}.safetensors")
    logits, cache = model.run_with_cache(TOKENS)
    assert set(cache) == set(recorded) - {"logits", "loss", "loss_per_token"} | OURS
    for key in set(cache) - OURS:
        check(cache[key], recorded[key])
    check(logits, recorded["logits"])


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_loss_without_hooks(name):
    model, recorded = recorded_model(name), load_file(FOLDER / f"{name}.safetensors")
    check(model(TOKENS), recorded["logits"])
    if "loss" not in recorded:  # a vocabulary of its own at the output
        return
    logits, loss = model(TOKENS, return_type="both")
    check(logits, recorded["logits"])
    check(loss, recorded["loss"])
    check(model(TOKENS, return_type="loss", loss_per_token=True), recorded["loss_per_token"])


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_has_the_recorded_names_and_shapes(name):
    model, weights = recorded_model(name), load_file(FOLDER / f"{name}.weights.safetensors")
    state = model.state_dict()
    computed = {key for key in weights if key.endswith((".mask", ".IGNORE", ".rotary_sin", ".rotary_cos"))}
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in weights.items() if key not in computed and key in state
    }
    assert set(weights) - computed - set(state) <= {"pos_embed.W_pos"}
    for key, value in state.items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=0)
        assert value.is_contiguous()
