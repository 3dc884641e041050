"""Configurations and tokenizers that transformers 5 refuses as they are written."""

import json

import huggingface_hub.dataclasses as hub_dataclasses
import pytest
import transformers
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer, models, pre_tokenizers

from transformer_lens.errors import TransformerLensError
from transformer_lens.models import lenient_loading
from transformer_lens.models.lenient_loading import (
    autoconfig_with_remote_post_init_compat,
    autotokenizer_with_special_token_compat,
    enable_hf_numeric_tower,
    get_rotary_pct_from_config,
    make_post_init_kwarg_tolerant,
)

OWN_CODE = """
from transformers import PreTrainedConfig


class OddConfig(PreTrainedConfig):
    model_type = "odd"
    width: int = 3

    def __post_init__(self):
        self.double = 2 * self.width
"""


class Recorder:
    calls = []

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        cls.calls.append((args, kwargs))
        return 5


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"rotary_pct": 0.3}, 0.3),
        ({"rope_parameters": {"partial_rotary_factor": 0.4}}, 0.4),
        ({"rotary_pct": 0.3, "rope_parameters": {"partial_rotary_factor": 0.4}}, 0.3),
        ({"rope_parameters": None}, 1.0),
        ({"partial_rotary_factor": 0.2}, 1.0),
        ({}, 1.0),
    ],
)
def test_the_rotated_part(fields, part):
    assert get_rotary_pct_from_config(type("Config", (), fields)()) == part


def test_the_rotated_part_of_real_configurations():
    kinds = (transformers.GPT2Config, transformers.GPTNeoXConfig, transformers.PhiConfig)
    assert [get_rotary_pct_from_config(kind()) for kind in kinds] == [1.0, 0.25, 0.5]


def test_a_post_init_without_arguments_is_made_to_take_them():
    class Old(transformers.PreTrainedConfig):
        model_type = "old"

        def __post_init__(self):
            self.post = self.foo

    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        Old(foo=3)
    for _ in range(2):
        make_post_init_kwarg_tolerant(Old)
        config = Old(foo=3)
        assert (config.foo, config.post, config.to_dict()["foo"]) == (3, 3, 3)


def test_a_model_s_own_configuration_class_loads(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "odd_model"
    folder.mkdir()
    fields = {"model_type": "odd", "auto_map": {"AutoConfig": "configuration_odd.OddConfig"}, "width": 5}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "configuration_odd.py").write_text(OWN_CODE)
    with pytest.raises(TypeError, match="__post_init__"):
        transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=True)
    config = autoconfig_with_remote_post_init_compat(str(folder), trust_remote_code=True)
    assert (type(config).__name__, config.width, config.double) == ("OddConfig", 5, 10)


def test_a_pinned_implementation_that_cannot_do_it_is_left(tmp_path):
    fields = {**transformers.LlamaConfig().to_dict(), "attn_implementation": "flash_attention_2"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(StrictDataclassError, match="output_attentions"):
        transformers.AutoConfig.from_pretrained(tmp_path, output_attentions=True)
    config = autoconfig_with_remote_post_init_compat(str(tmp_path), output_attentions=True)
    assert (config._attn_implementation, config.output_attentions) == ("eager", True)


def test_other_loaders_are_asked_with_what_is_given():
    Recorder.calls = []
    assert autoconfig_with_remote_post_init_compat("x", Recorder, revision="r") == 5
    assert autotokenizer_with_special_token_compat("x", Recorder, revision="r") == 5
    assert Recorder.calls == [(("x",), {"revision": "r"})] * 2


def test_a_tokenizer_with_special_tokens_in_another_form_loads(tmp_path):
    words = {"a": 0, "b": 1, "[X]": 2, "[UNK]": 3, "</s>": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    declared = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": {"content": "[UNK]"},
        "additional_special_tokens": [["[X]"]], "model_max_length": 77,
    }  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(declared))
    with pytest.raises(TypeError, match="AddedToken"):
        transformers.AutoTokenizer.from_pretrained(tmp_path)
    loaded = autotokenizer_with_special_token_compat(str(tmp_path))
    assert (loaded("a b").input_ids, loaded.eos_token, loaded.unk_token) == ([0, 1], "</s>", "[UNK]")
    assert loaded.model_max_length == 77


def test_other_errors_stay_errors(tmp_path):
    for load in (autoconfig_with_remote_post_init_compat, autotokenizer_with_special_token_compat):
        with pytest.raises((OSError, ValueError)):
            load(str(tmp_path))


def test_whole_numbers_count_as_floats_when_asked(monkeypatch):
    def strict(name, value, expected_type):
        if not isinstance(value, expected_type):
            raise TypeError(f"Field {name!r} expected {expected_type.__name__}")

    monkeypatch.setattr(hub_dataclasses, "_validate_simple_type", strict)
    with pytest.raises(TypeError, match="expected float"):
        hub_dataclasses.type_validator("factor", 1, float)
    enable_hf_numeric_tower()
    enable_hf_numeric_tower()
    hub_dataclasses.type_validator("factor", 1, float)
    for wrong in (True, "1"):
        with pytest.raises(TypeError, match="expected float"):
            hub_dataclasses.type_validator("factor", wrong, float)


def test_a_check_that_is_not_known_is_said(monkeypatch):
    monkeypatch.setattr(lenient_loading, "_takes_whole_numbers", lambda: False)
    monkeypatch.setattr(hub_dataclasses, "_validate_simple_type", hub_dataclasses._validate_simple_type)
    with pytest.raises(TransformerLensError, match="checks types of fields in a way not known here"):
        enable_hf_numeric_tower()
