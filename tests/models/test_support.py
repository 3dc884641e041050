"""Which models are said to boot."""

import pytest
from census.tiny import tiny_model

from transformer_lens import check_model_support, list_supported_models
from transformer_lens.specs import UnsupportedModelError


def test_names_are_listed_by_architecture():
    assert "gpt2" in list_supported_models("GPT2LMHeadModel")
    assert "EleutherAI/pythia-70m" not in list_supported_models("GPT2LMHeadModel")
    assert set(list_supported_models(verified_only=True)) < set(list_supported_models())


def test_an_unknown_architecture_says_the_nearest():
    with pytest.raises(UnsupportedModelError, match="GPT2LMHeadModel"):
        list_supported_models("GPT2LMHead")


def test_a_folder_is_judged_by_its_configuration(tmp_path):
    tiny_model("mamba").config.save_pretrained(tmp_path)
    found = check_model_support(str(tmp_path))
    assert (found["is_supported"], found["known_by"], found["verified"]) == (True, "resolver", False)


def test_what_is_no_language_model_is_not_supported(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    found = check_model_support(str(tmp_path))
    assert not found["is_supported"]
    assert "resnet" in found["reason"]


def test_a_name_that_nothing_has_gives_a_reason():
    assert "Nearest" in check_model_support("gtp2")["reason"]
