"""Processed families: weights as transformer-lens 3.9.0 recorded them, log-probabilities as transformers did."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transformer_lens import HookedTransformer
from transformer_lens.weights.processing import refusals

GOLDEN = Path(__file__).parents[1] / "golden"
FAMILIES = sorted(path.parent.name for path in GOLDEN.glob("*/hf_logits.safetensors"))
# NOTE: none for gpt_oss: 3.9.0 folds value biases although its attention sinks forbid it, and is 3.4 nats off.
RECORDED = sorted(path.parent.name for path in GOLDEN.glob("*/ht_processed_weights.safetensors"))


def processed(family):
    model = HookedTransformer.from_pretrained_no_processing(str(GOLDEN / family), device="cpu")
    refused = refusals(model.state_dict(), model.cfg)
    model.process_weights_(
        center_writing_weights="center_writing_weights" not in refused,
        center_unembed="center_unembed" not in refused,
        fold_value_biases="fold_value_biases" not in refused,
    )
    return model


def test_there_are_families():
    assert len(RECORDED) >= 11
    assert "gpt_oss" in FAMILIES


@pytest.mark.parametrize("family", RECORDED)
def test_weights(family):
    model = processed(family)
    recorded = load_file(GOLDEN / family / "ht_processed_weights.safetensors")
    state = model.state_dict()
    assert state.keys() == recorded.keys()
    for name, value in recorded.items():
        torch.testing.assert_close(state[name], value, atol=2e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_log_probabilities_are_those_of_transformers(family):
    tokens = torch.from_numpy(np.load(GOLDEN / family / "tokens.npy"))
    logits = load_file(GOLDEN / family / "hf_logits.safetensors")["hf_logits"]
    ours = processed(family)(tokens)
    # Logits of 20 have a rounding error of 1e-6 in float32, whoever computes them.
    torch.testing.assert_close(ours.log_softmax(-1), logits.log_softmax(-1), atol=1e-5, rtol=1e-6)
