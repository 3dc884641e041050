"""What configurations declare of quantisation, as objects and as dicts."""

import pytest
from transformers import BitsAndBytesConfig, GPT2Config

from transformer_lens.config.quantization import quantization_method


def config(quantization=None):
    made = GPT2Config()
    if quantization is not None:
        made.quantization_config = quantization
    return made


@pytest.mark.parametrize(
    ("given", "method"),
    [
        (config(), None),
        (config({"quant_method": "bitsandbytes", "load_in_4bit": True}), "bitsandbytes"),
        (config(BitsAndBytesConfig(load_in_8bit=True)), "bitsandbytes"),
        (config({"load_in_4bit": True}), None),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_method_is_read_in_every_form(given, method):
    assert quantization_method(given) == method
