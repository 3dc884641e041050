"""Where models are: on the devices there are everywhere, the CPU and meta."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from transformer_lens.config.placement import (
    cast_floating_params_to_dtype,
    count_unique_devices,
    find_embedding_device,
    find_misplaced_modules,
    is_mixed_offload_gpu,
    maybe_cast_floating_params,
    resolve_device_map,
)
from transformer_lens.errors import ConfigurationError


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


def test_quantised_models_are_not_cast():
    model = GPT2Model(GPT2Config(n_layer=1, n_embd=12, vocab_size=5))
    maybe_cast_floating_params(model, torch.float64)
    assert model.wte.weight.dtype == torch.float64
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    maybe_cast_floating_params(model, torch.float16)
    assert model.wte.weight.dtype == torch.float64


def test_where_a_map_and_a_model_differ():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=12, vocab_size=5))
    assert find_misplaced_modules(model) == []
    for places, wrong in (
        ({"": "cpu"}, []),
        ({"transformer": "cpu", "lm_head": 0}, [("lm_head", "0", "cpu")]),
        ({"transformer.wte": "cuda:1", "nope": 0}, [("transformer.wte", "cuda:1", "cpu")]),
        ({"transformer.wte": "disk", "transformer.h": torch.device("cuda", 1)}, [("transformer.h", "cuda:1", "cpu")]),
        ({"transformer.wte": "cpu:0"}, []),
    ):
        model.hf_device_map = places
        assert find_misplaced_modules(model) == wrong
    model.to("meta")
    model.hf_device_map = {"": 0}
    assert find_misplaced_modules(model) == []


def test_arguments_of_from_pretrained_are_found(monkeypatch):
    assert resolve_device_map(None, None, None) == resolve_device_map(1, None, "cpu") == (None, None)
    assert resolve_device_map(None, {"a": "cpu"}, None) == ({"a": "cpu"}, None)
    assert resolve_device_map(None, "auto", None, {0: "1GB"}) == ("auto", {0: "1GB"})
    with pytest.raises(ConfigurationError, match="n_devices=64, and there are"):
        resolve_device_map(64, None, None)
    for arguments in ((None, "auto", "cpu"), (2, None, "cpu"), (2, "auto", None)):
        with pytest.raises(ConfigurationError, match="both say where the model goes"):
            resolve_device_map(*arguments)
    with pytest.raises(ConfigurationError, match="max_memory has no effect without device_map or n_devices"):
        resolve_device_map(None, None, None, {0: "1GB"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 + device, 200))
    assert resolve_device_map(2, None, None) == ("balanced", {0: 100, 1: 101})
    assert resolve_device_map(2, None, None, {0: "1GB", 1: "2GB"}) == ("balanced", {0: "1GB", 1: "2GB"})
    with pytest.raises(ConfigurationError, match="n_devices=3, and there are 2 CUDA devices"):
        resolve_device_map(3, None, None)
