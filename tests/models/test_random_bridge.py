"""Bridges with drawn weights: those of their seed, of the same shapes as the trained ones, and none of them."""

import torch

from transformer_lens import TransformerBridge
from transformer_lens.models.random_bridge import random_init_bridge


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
