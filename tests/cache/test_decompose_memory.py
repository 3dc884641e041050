"""Stacks are written once: what else is made on the way is small beside them."""

import torch
from cache_models import model_of, run_of
from torch.utils._python_dispatch import TorchDispatchMode


class Sizes(TorchDispatchMode):
    """How many numbers each new tensor holds (views and results written in place hold none)."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        arguments = [*args, *(kwargs or {}).values()]
        given = {x.untyped_storage().data_ptr() for x in arguments if isinstance(x, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in given:
            self.made.append(result.numel())
        return result


def made_by(question):
    with torch.no_grad(), Sizes() as sizes:
        result = question()
    return result.numel(), sorted(sizes.made, reverse=True)


def test_heads_are_written_into_one_allocation():
    _, cache = run_of("plain")
    for arguments in ({}, {"apply_ln": True}, {"incl_remainder": True, "apply_ln": True}):
        size, made = made_by(lambda arguments=arguments: cache.stack_head_results(**arguments))
        assert made[0] == size
        assert made[1] <= size / 7  # a layer's z, a stream


def test_neurons_are_written_into_one_allocation():
    _, cache = run_of("plain")
    for question in (
        lambda: cache.stack_neuron_results(-1, apply_ln=True, incl_remainder=True),
        lambda: cache.get_full_resid_decomposition(apply_ln=True),
    ):
        size, made = made_by(question)
        assert made[0] == size
        assert made[1] <= size / 20


def test_projected_neurons_are_never_as_wide_as_the_stream():
    _, cache = run_of("plain")
    n_neurons, places, d_model = 2 * 20, 2 * 7, model_of("plain").cfg.d_model
    direction = torch.randn(d_model)
    for question in (
        lambda: cache.stack_neuron_results(-1, apply_ln=True, project_output_onto=direction),
        lambda: cache.get_full_resid_decomposition(apply_ln=True, project_output_onto=direction),
    ):
        size, made = made_by(question)
        assert made[0] == size < n_neurons * places * 2
        assert size < n_neurons * places * d_model / 8


def test_the_lens_holds_a_chunk_of_logits():
    _, cache = run_of("plain")
    _, made = made_by(lambda: cache.logit_lens(positions=None, top_k=1, chunk_size=2).values)
    assert made[0] <= max(2 * 31, 2 * 7 * 16)
