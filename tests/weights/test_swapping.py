"""A parameter with other numbers for a while."""

import pytest
import torch
from torch import nn

from transformer_lens import TransformerBridge
from transformer_lens.weights.swapping import temporarily_swap_parameter


def test_the_same_parameter_holds_other_numbers_and_gets_its_own_back():
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.full((2, 2), 3.0)
    with temporarily_swap_parameter(parameter, torch.zeros(2, 2)) as swapped:
        assert swapped is parameter
        assert not parameter.any()
    assert torch.equal(parameter, torch.ones(2, 2))
    assert torch.equal(parameter.grad, torch.full((2, 2), 3.0))
    assert parameter.requires_grad


def test_an_exception_restores_it_too():
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(KeyError), temporarily_swap_parameter(parameter, torch.zeros(2)):
        raise KeyError
    assert torch.equal(parameter, torch.ones(2))


def test_what_does_not_fit_is_refused():
    parameter = nn.Parameter(torch.ones(2, 2))
    for new, message in (
        (torch.zeros(2), r"new_value has shape \(2,\); it must be \(2, 2\)"),
        (torch.zeros(2, 2).double(), r"dtype torch.float64; it must be torch.float32"),
    ):
        with pytest.raises(ValueError, match=message), temporarily_swap_parameter(parameter, new):
            pass
    with pytest.raises(TypeError, match=r"torch\.nn\.Parameter; got Tensor"):
        temporarily_swap_parameter(torch.ones(2), torch.zeros(2)).__enter__()
    with pytest.raises(TypeError, match=r"torch\.Tensor; got list"):
        temporarily_swap_parameter(parameter, [1]).__enter__()


@torch.no_grad()
def test_a_bridge_runs_on_the_other_numbers():
    bridge = TransformerBridge.boot_transformers("demo", device="cpu")
    prompt = "The Eiffel Tower is in"
    before = bridge(prompt)
    weight = bridge.original_model.transformer.h[1].mlp.c_proj.weight
    with temporarily_swap_parameter(weight, torch.zeros_like(weight)):
        bias = bridge.blocks[1].mlp.b_out
        _, cache = bridge.run_with_cache(prompt)
        assert torch.equal(cache["mlp_out", 1], bias.expand_as(cache["mlp_out", 1]))
    assert torch.equal(bridge(prompt), before)
