"""Interchanges on any task: against runs themselves, against the search over next tokens, and on planted subspaces."""

import pytest
import torch
from planted_model import N_FIRST, N_SECOND, STREAM, pairs_of_tokens, planted

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.steering.bases import random_basis
from transformer_lens.steering.das import fit_das
from transformer_lens.steering.interchanges import (
    NormMatchedPlacebo,
    SubspaceInterchange,
    collect_activations,
    intervened_logits,
    run_with_intervention,
)

__all__ = ["planted"]
HOOK = "blocks.1.hook_resid_post"


def last(model, tokens):
    return model(tokens)[:, -1]


@pytest.fixture(params=["native", "bridge"])
def model(request):
    if request.param == "native":
        return HookedTransformer.from_pretrained("demo")
    return TransformerBridge.boot_transformers("demo")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_each_row_is_read_at_its_own_position(model):
    tokens, positions = torch.randint(5, 50, (5, 4)), torch.tensor([0, 3, 1, 2, 3])
    _, cache = model.run_with_cache(tokens)
    rows = torch.arange(5)
    found = collect_activations(model, HOOK, tokens, last, positions=positions, batch_size=2)
    torch.testing.assert_close(found, cache[HOOK][rows, positions], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(collect_activations(model, HOOK, tokens, last), cache[HOOK][:, -1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_whole_space_at_the_last_position_gives_the_sources_answer(model):
    tokens = torch.randint(5, 50, (4, 3), generator=torch.Generator().manual_seed(0))
    base, source = tokens[:2], tokens[2:]
    hook = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    given = collect_activations(model, hook, source, last)
    whole, none = SubspaceInterchange(torch.eye(128)), SubspaceInterchange(torch.eye(128), strength=0.0)
    changed = run_with_intervention(model, hook, whole, base, given, last)
    torch.testing.assert_close(changed, last(model, source), atol=1e-4, rtol=1e-4)
    same = intervened_logits(model, hook, none, base, given, last, batch_size=1)
    torch.testing.assert_close(same, last(model, base), atol=1e-4, rtol=1e-4)


def test_a_placebo_moves_each_row_as_far_in_another_subspace():
    base, source = drawn(6, 10), drawn(6, 10, seed=1)
    reference, basis = SubspaceInterchange(random_basis(10, 3, seed=2), strength=0.7), random_basis(10, 2, seed=3)
    move = NormMatchedPlacebo(reference, basis)(base, source) - base
    torch.testing.assert_close(move.norm(dim=-1), (reference(base, source) - base).norm(dim=-1))
    torch.testing.assert_close(move @ basis @ basis.T, move, atol=1e-5, rtol=1e-4)
    assert torch.equal(NormMatchedPlacebo(reference, basis)(base, base), base)


def test_only_the_subspace_moves():
    base, source, basis = drawn(2, 5), drawn(2, 5, seed=1), random_basis(5, 2, seed=2)
    moved = SubspaceInterchange(basis)(base, source)
    torch.testing.assert_close(moved @ basis, source @ basis)
    rest = torch.eye(5) - basis @ basis.T
    torch.testing.assert_close(moved @ rest, base @ rest)


def test_das_finds_the_planted_subspace_on_classes_of_its_task(planted):
    model, differences = planted
    pairs = pairs_of_tokens()

    def first(model, tokens):  # of the two variables that a token stands for, the logit of the first alone
        return last(model, tokens).unflatten(-1, (N_FIRST, N_SECOND)).logsumexp(-1)

    targets = pairs.source[:, 0] // N_SECOND
    # NOTE: the first variable alone is given by the whole space too; so the second must stay, as whole tokens ask.
    found = fit_das(model, STREAM, pairs.base, pairs.source, pairs.label, last, rank=2, epochs=100, batch_size=64)
    true = torch.linalg.svd(differences, full_matrices=False).Vh[:2]
    assert torch.linalg.svdvals(true @ found.basis).min() > 0.97
    assert found.losses[-1] < found.losses[0] / 3
    given = collect_activations(model, STREAM, pairs.source, last)
    right = intervened_logits(model, STREAM, SubspaceInterchange(found.basis), pairs.base, given, first)
    assert (right.argmax(-1) == targets).all()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_steps_in_parts_are_the_same_steps(planted):
    model, _ = planted
    pairs = pairs_of_tokens()
    data = (pairs.base, pairs.source, pairs.label, last)
    whole, parts = (fit_das(model, STREAM, *data, rank=2, epochs=3, micro_batch_size=size) for size in (None, 10))
    # Adam divides by gradients that may be tiny, so that rounding shows in single entries.
    assert torch.linalg.svdvals(whole.basis.T @ parts.basis).min() > 0.999
    assert whole.losses == pytest.approx(parts.losses, rel=1e-3)


def test_what_cannot_be_is_refused(planted):
    model, _ = planted
    tokens = torch.tensor([[1, 2]])
    with pytest.raises(ValueError, match=r"hook_q has shape \(1, 2, 4, 4\)"):
        collect_activations(model, "blocks.0.attn.hook_q", tokens, last)
    with pytest.raises(ValueError, match=r"must run blocks\.0\.hook_resid_post once; it ran 0 times"):
        collect_activations(model, STREAM, tokens, lambda model, tokens: tokens)
    with pytest.raises(ValueError, match="1 rows and 3 source activations"):
        run_with_intervention(model, STREAM, SubspaceInterchange(torch.eye(16)), tokens, torch.ones(3, 16), last)
    with pytest.raises(ValueError, match="got 1, 1 and 2"):
        fit_das(model, STREAM, tokens, tokens, torch.tensor([1, 2]), last, rank=1)
