"""Bridges with drawn weights: those of their seed, of the same shapes as the trained ones, and none of them."""

import pytest
import torch

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.models.random_bridge import random_init_bridge, reinitialized


def test_weights_are_those_of_the_seed_and_not_the_trained_ones():
    before = torch.random.get_rng_state()
    first, again, other = (random_init_bridge("demo", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    trained = TransformerBridge.boot_transformers("demo")
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(first(tokens), again(tokens))
    assert first.W_Q.shape == trained.W_Q.shape
    for different in (other, trained):
        assert not torch.allclose(first.W_Q, different.W_Q)
    assert random_init_bridge("demo", seed=0, dtype=torch.float64).W_Q.dtype == torch.float64


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.own = torch.nn.Parameter(torch.ones(2))
        self.linear = torch.nn.Linear(2, 2)


def test_a_copy_is_drawn_as_torch_would_draw_it_and_the_module_stays():
    module = torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    module[1].register_buffer("fixed", torch.full((2,), 7.0))
    before, state = {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()
    drawn = reinitialized(module, 3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert (module.training, drawn.training) == (True, False)
    assert drawn[1].fixed.tolist() == [7.0, 7.0]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for part, expected in zip(drawn, module, strict=True):
            expected.reset_parameters()
            assert torch.equal(part.weight, expected.weight)
    assert not torch.equal(drawn[0].weight, reinitialized(module, 4)[0].weight)


def test_tied_weights_stay_tied_and_are_drawn_once_for_each_module():
    module = torch.nn.Sequential(torch.nn.Embedding(4, 2), torch.nn.Linear(2, 4, bias=False))
    module[1].weight = module[0].weight
    drawn = reinitialized(module, 0)
    assert drawn[0].weight is drawn[1].weight is not module[0].weight


def test_what_nobody_would_draw_is_refused():
    with pytest.raises(ValueError, match=r"1 parameters would stay as they are, .*: own\. Draw them yourself"):
        reinitialized(Small(), 0)


def test_a_hooked_transformer_is_drawn_as_its_configuration_says():
    model = HookedTransformer.from_pretrained("demo")
    first, again, other = (reinitialized(model, seed) for seed in (0, 0, 1))
    assert torch.equal(first.W_Q, again.W_Q)
    assert not torch.equal(first.W_Q, other.W_Q)
    assert first.W_Q.std().item() == pytest.approx(model.cfg.initializer_range, rel=0.1)
    assert not first.training
    assert first("The Eiffel Tower is in").shape == model("The Eiffel Tower is in").shape
