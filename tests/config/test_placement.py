"""Where models are: on the devices there are everywhere, the CPU and meta."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

from transformer_lens.config.placement import (
    cast_floating_params_to_dtype,
    count_unique_devices,
    find_embedding_device,
    is_mixed_offload_gpu,
)


@pytest.mark.parametrize(
    ("values", "mixed"),
    [
        ([0, 1, "cuda:2"], False),
        ([0, "cpu"], True),
        ([torch.device("cuda", 0), torch.device("cpu")], True),
        (["mps", "disk"], True),
        (["cpu", "disk"], False),
        ([], False),
    ],
)
def test_a_map_is_mixed_if_it_names_both(values, mixed):
    assert is_mixed_offload_gpu(values) is mixed
    assert is_mixed_offload_gpu(dict(enumerate(values)).values()) is mixed


def test_devices_are_counted_once_buffers_too():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert count_unique_devices(module) == 1
    module[0].to("meta")
    assert count_unique_devices(module) == 2
    module[1].weight = module[1].bias = None
    assert count_unique_devices(module) == 2


def test_the_embeddings_are_found_wherever_the_rest_is():
    model = GPT2Model(GPT2Config(n_layer=1, n_embd=12, vocab_size=5))
    model.wte.to("meta")
    assert find_embedding_device(model) == torch.device("meta")
    model.set_input_embeddings(None)
    assert find_embedding_device(model) is None


def test_parameters_are_cast_and_nothing_else_is():
    module = nn.BatchNorm1d(2)
    module.register_parameter("count", nn.Parameter(torch.tensor([3]), requires_grad=False))
    weight = module.weight
    cast_floating_params_to_dtype(module, torch.bfloat16)
    assert module.weight is weight
    assert (module.weight.dtype, module.running_mean.dtype, module.count.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.int64,
    )
    with pytest.raises(ValueError, match=r"floating-point dtype; got torch\.int8"):
        cast_floating_params_to_dtype(module, torch.int8)
