"""Directions read from prompts, against the same by hand and a planted answer."""

import pytest
import torch
from tests.toys import TOKENS, toy

from transformer_lens import HookedTransformer, TransformerBridge, demo
from transformer_lens.steering import Contrast, add, contrast

HOOK = "blocks.2.hook_resid_pre"
POSITIVE = ["The Eiffel Tower is in", "The capital of France is", "The Louvre is in"]
NEGATIVE = ["The Colosseum is in", "The capital of Italy is", "The Pantheon is located in"]


def planted(n_positive=40, n_negative=40, seed=0):
    """Two clouds that lie apart along the first axis, paired by a common part of greater size along the second."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.zeros(max(n_positive, n_negative), 6)
    common[:, 1] = 20 * torch.randn(len(common), generator=generator)
    noise = 0.1 * torch.randn(2, len(common), 6, generator=generator)
    axis = torch.eye(6)[0]
    return Contrast(
        {"h": (common + noise[0] + 2 * axis)[:n_positive]}, {"h": (common + noise[1] - 2 * axis)[:n_negative]}
    )


@pytest.mark.parametrize("boot", [HookedTransformer.from_pretrained, TransformerBridge.boot_transformers])
def test_mean_difference_is_that_of_the_last_tokens_of_each_prompt_alone(boot):
    model = boot("demo", device="cpu")
    found = contrast(model, POSITIVE, NEGATIVE, [HOOK, "blocks.1.attn.hook_z"])

    def mean(texts, hook):
        return torch.stack([model.run_with_cache(text)[1][hook][0, -1] for text in texts]).mean(0)

    for hook in (HOOK, "blocks.1.attn.hook_z"):
        wanted = mean(POSITIVE, hook) - mean(NEGATIVE, hook)
        torch.testing.assert_close(found.mean_difference(hook), wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.mean_difference(hook, normalise=True), wanted / wanted.norm())


def test_other_positions_and_token_ids():
    model = toy()
    found = contrast(model, TOKENS, TOKENS.flip(1), "blocks.1.hook_resid_pre", pos=2)
    _, cache = model.run_with_cache(torch.cat([TOKENS, TOKENS.flip(1)]))
    here = cache["resid_pre", 1][:, 2]
    torch.testing.assert_close(found.mean_difference("blocks.1.hook_resid_pre"), here[:2].mean(0) - here[2:].mean(0))


def test_principal_component_of_pairs_finds_what_differs_not_what_varies():
    found = planted()
    direction = found.principal_component("h", normalise=True)
    assert direction[0] > 0.999
    torch.testing.assert_close(direction.norm(), torch.tensor(1.0))
    assert found.principal_component("h").norm() == pytest.approx(4.0, rel=0.02)  # how far the sets lie apart
    assert found.separation("h", direction) == 1.0
    assert abs(found.separation("h", torch.eye(6)[2]) - 0.5) < 0.2


def test_principal_component_of_sets_is_that_of_differences_to_the_other_mean():
    found = planted(40, 25)
    x, y = found.positive["h"], found.negative["h"]
    rows = torch.cat([x - y.mean(0), x.mean(0) - y])
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    direction = found.principal_component("h", normalise=True)
    torch.testing.assert_close((direction @ vectors[:, -1]).abs(), torch.tensor(1.0), rtol=1e-4, atol=1e-4)
    assert direction @ found.mean_difference("h") > 0


def test_pronouns_of_the_demo_model_differ_along_a_direction():
    """Names of women and of men: the direction at the last token tells held-out names apart and turns the pronoun."""
    model = HookedTransformer.from_pretrained("demo", device="cpu")
    she, he = model.to_single_token(" she"), model.to_single_token(" he")

    def split(prompts):
        women = [p for p, a in zip(prompts.prompts, prompts.answers, strict=True) if a == " she"]
        men = [p for p, a in zip(prompts.prompts, prompts.answers, strict=True) if a == " he"]
        return women, men

    hook = "blocks.3.hook_resid_mid"
    direction = contrast(model, *split(demo.pronouns(40, seed=1, split="train")), hook).mean_difference(hook)
    women, men = split(demo.pronouns(20))
    assert contrast(model, women, men, hook).separation(hook, direction) > 0.95
    with model.edit(add(hook, direction, 2.0, pos=-1)):
        for text in men:
            logits = model(text)[0, -1]
            assert logits[she] > logits[he]


def test_refuses():
    model = toy()
    with pytest.raises(ValueError, match="A set of prompts is empty"):
        contrast(model, TOKENS, TOKENS[:0], "blocks.1.hook_resid_pre")
    with pytest.raises(ValueError, match="Position 7 is outside a prompt of 7 tokens"):
        contrast(model, TOKENS, TOKENS, "blocks.1.hook_resid_pre", pos=7)
