"""Patching all positions at once gives the numbers of patching one at a time."""

import pytest
import torch

from transformer_lens import HookedTransformer
from transformer_lens.patching import patch_residual

CLEAN, CORRUPTED = "The Eiffel Tower is in the city of", "The Colosseum is in the city of"


@pytest.fixture(scope="module")
def model():
    return HookedTransformer.from_pretrained("demo")


def metric(logits):
    return logits[:, -1, 100] - logits[:, -1, 200]


def test_equals_one_run_for_each_patch(model):
    clean, corrupted = model.to_tokens(CLEAN), model.to_tokens(CORRUPTED)
    result = patch_residual(model, clean, corrupted, metric)
    _, cache = model.run_with_cache(clean)
    for layer in range(model.cfg.n_layers):
        for pos in range(clean.shape[1]):

            def patch(resid, hook, pos=pos):
                resid[:, pos] = cache[hook.name][:, pos]

            logits = model.run_with_hooks(corrupted, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", patch)])
            torch.testing.assert_close(result[layer, pos], metric(logits)[0], atol=1e-4, rtol=1e-4)


def test_patching_a_run_with_itself_changes_nothing(model):
    clean = model.to_tokens(CLEAN)
    result = patch_residual(model, clean, clean, metric)
    torch.testing.assert_close(result, metric(model(clean)).expand(result.shape), atol=1e-4, rtol=1e-4)


def test_prompts_of_unequal_length_are_refused(model):
    with pytest.raises(ValueError, match=r"equal length; got \(1, 9\) and \(1, 2\) tokens"):
        patch_residual(model, model.to_tokens(CLEAN), model.to_tokens("The"), metric)
