"""Integrated gradients: completeness, on both hosts."""

import pytest
import torch

from models.families import hf_model
from toys import TOKENS, toy
from transformer_lens import TransformerBridge
from transformer_lens.patching import LogitDifference, integrated_gradients

OTHER = (TOKENS * 7 + 3) % 31
METRIC = LogitDifference(3, 5)


@pytest.mark.parametrize("model_of", [toy, lambda: TransformerBridge.boot_transformers(hf_model=hf_model("gemma2"))])
@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_pre", "blocks.1.hook_attn_out"])
def test_what_positions_account_for_sums_to_the_change(model_of, hook):
    model = model_of()
    found = integrated_gradients(model, TOKENS, METRIC, baseline=OTHER, hook=hook, steps=128)
    _, other = model.run_with_cache(OTHER)
    baseline = METRIC(model.run_with_hooks(TOKENS, fwd_hooks=[(hook, lambda x, hook: other[hook.name])])).mean()
    change = METRIC(model(TOKENS)).mean() - baseline
    assert found.shape == TOKENS.shape
    torch.testing.assert_close(found.sum(), change.detach(), atol=5e-3, rtol=5e-3)


def test_heads_have_an_axis_of_their_own():
    found = integrated_gradients(toy(), TOKENS, METRIC, hook="blocks.1.attn.hook_z", steps=2)
    assert found.shape == (2, 7, 4)


def test_embeddings_are_as_the_stream_that_they_enter():
    # Both runs have the same positions, so the token embedding alone moves.
    found = integrated_gradients(toy(), TOKENS, METRIC, baseline=OTHER, hook="hook_embed", steps=3)
    torch.testing.assert_close(found, integrated_gradients(toy(), TOKENS, METRIC, baseline=OTHER, steps=3))


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="steps is 1 or more"):
        integrated_gradients(toy(), TOKENS, METRIC, steps=0)
    with pytest.raises(ValueError, match="one shape"):
        integrated_gradients(toy(), TOKENS, METRIC, baseline=OTHER[:, 1:])
    with pytest.raises(ValueError, match=r"baseline has shape \(2, 7, 3\)"):
        integrated_gradients(toy(), TOKENS, METRIC, baseline=torch.zeros(2, 7, 3))
