"""DAS: a planted subspace is found, and on the demo model the subspace of a landmark's city."""

import pytest
import torch
from planted_model import N_FIRST, STREAM, pairs_of_tokens, planted

from transformer_lens import HookedTransformer, TransformerBridge, demo
from transformer_lens.steering import Interchanges, find_subspace, interchange, interchange_accuracy

__all__ = ["planted"]


def test_finds_the_planted_subspace(planted):
    model, differences = planted
    found = find_subspace(model, pairs_of_tokens(), STREAM, N_FIRST - 1, steps=150)
    assert found.accuracy == found.train_accuracy == 1.0
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(2), rtol=0, atol=1e-5)
    true = torch.linalg.svd(differences, full_matrices=False).Vh[:2]
    cosines = torch.linalg.svdvals(found.basis @ true.T)  # of the angles between the two subspaces
    assert cosines.min() > 0.97
    assert found.losses[-1] < found.losses[0] / 3
    assert interchange_accuracy(model, pairs_of_tokens(), STREAM, true) == 1.0
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert model.edits == ()


def test_another_subspace_does_not_do(planted):
    model, _ = planted
    others = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    assert interchange_accuracy(model, pairs_of_tokens(), STREAM, others) < 0.6
    one = find_subspace(model, pairs_of_tokens(), STREAM, 1, steps=100)
    assert one.accuracy < 1.0  # the differences have two dimensions


def test_accuracy_is_that_of_interchanges_one_by_one(planted):
    model, differences = planted
    pairs, subspace = pairs_of_tokens()[::6], differences[:1] + 0.1 * torch.arange(16)
    right = 0
    for number in range(len(pairs)):
        _, source = model.run_with_cache(pairs.source[number : number + 1])
        with model.edit(interchange(STREAM, source, subspace)):
            right += int(model(pairs.base[number : number + 1])[0, -1].argmax() == pairs.label[number])
    assert interchange_accuracy(model, pairs, STREAM, subspace, batch_size=7) == right / len(pairs)
    assert 0 < right < len(pairs)


@pytest.mark.parametrize(
    "boot",
    [HookedTransformer.from_pretrained, pytest.param(TransformerBridge.boot_transformers, marks=pytest.mark.slow)],
)
def test_the_city_of_a_landmark_lies_in_a_quarter_of_the_stream(boot):
    model = boot("demo", device="cpu")
    facts = demo.facts(58, split="train")
    base, source = torch.randint(0, 58, (2, 400), generator=torch.Generator().manual_seed(0))
    differ = facts.answer_tokens[base] != facts.answer_tokens[source]
    base, source = base[differ], source[differ]
    pairs = Interchanges(facts.tokens[base], facts.tokens[source], facts.answer_tokens[source])
    hook = "blocks.3.hook_resid_mid"
    found = find_subspace(model, pairs, hook, 32, steps=100)
    assert found.accuracy > 0.8
    anything = torch.randn(32, 128, generator=torch.Generator().manual_seed(1))
    assert interchange_accuracy(model, pairs, hook, anything) < 0.1
    other = demo.facts(12)  # another wording, which the search has not seen
    pairs = Interchanges(other.tokens, other.corrupted_tokens, other.wrong_tokens)
    assert interchange_accuracy(model, pairs, hook, found.basis) > 0.7


def test_same_seed_same_subspace_and_torchs_generator_is_left_alone(planted):
    model, _ = planted
    before = torch.get_rng_state()
    first, second = (find_subspace(model, pairs_of_tokens(), STREAM, 2, steps=5, seed=3) for _ in range(2))
    assert torch.equal(first.basis, second.basis)
    assert torch.equal(torch.get_rng_state(), before)


def test_refuses(planted):
    model, _ = planted
    with pytest.raises(ValueError, match="has 16 dimensions; got dimensions=17"):
        find_subspace(model, pairs_of_tokens(), STREAM, 17)
    with pytest.raises(ValueError, match=r"Of 2 pairs, held_out=0.1 keeps 0"):
        find_subspace(model, pairs_of_tokens()[:2], STREAM, 2, held_out=0.1)
    with pytest.raises(ValueError, match=r"activations \[batch, pos, d\]; blocks.0.attn.hook_z has shape"):
        find_subspace(model, pairs_of_tokens(), "blocks.0.attn.hook_z", 2)
