"""Which weights can be read as plain matrices, and what is said of others."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import GPT2Config

from transformer_lens.wrapped.quantized import (
    describe_quantization,
    require_readable_weight,
    unreadable_weight_reason,
)


class Params4bit(nn.Parameter):
    pass


PACKED = Params4bit(torch.zeros(2, 1, dtype=torch.uint8), requires_grad=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_four_dtypes_can_be_read(dtype):
    weight = torch.ones(2, dtype=dtype)
    assert unreadable_weight_reason(weight) is None
    assert require_readable_weight(weight, operation="fold") is weight


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (torch.ones(2).to(torch.float8_e4m3fn), "it is kept as torch.float8_e4m3fn, which is narrow floats"),
        (torch.ones(2, dtype=torch.int8), "it is kept as torch.int8, which is packed integers"),
        (torch.ones(2, dtype=torch.bool), "it is kept as torch.bool"),
        (torch.ones(2, device="meta"), "it is on the meta device"),
        (None, "it is a NoneType, not a tensor"),
    ],
)
def test_others_cannot_and_it_is_said_why(weight, reason):
    assert unreadable_weight_reason(weight).startswith(reason)


def test_how_weights_are_quantised_is_found():
    config = GPT2Config()
    config.quantization_config = {"quant_method": "bitsandbytes"}
    layer = nn.Linear(2, 2)
    assert describe_quantization(layer) == "an unknown quantization"
    assert describe_quantization(SimpleNamespace(weight=PACKED)) == "Params4bit"
    layer.config = config
    assert describe_quantization(layer) == "bitsandbytes"
    assert describe_quantization(None) == "an unknown quantization"


def test_the_error_says_what_for_why_and_what_to_do():
    owner = SimpleNamespace(weight=PACKED)
    with pytest.raises(
        NotImplementedError, match=r"Cannot fold LayerNorm because it is kept as torch.uint8.*Params4bit"
    ):
        require_readable_weight(PACKED, operation="fold LayerNorm", owner=owner)
    with pytest.raises(NotImplementedError, match=r"unknown quantization\)\. Merge them\.$"):
        require_readable_weight(PACKED, operation="read W_Q", remedy="Merge them.")
