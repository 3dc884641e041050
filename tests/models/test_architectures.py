"""Kinds of models, told from the configurations that transformers saves."""

import pytest
import transformers

from transformer_lens.models.architectures import (
    get_architectures_for_config,
    is_audio_model,
    is_encoder_decoder_model,
    is_masked_lm_model,
    is_multimodal_model,
)

KINDS = {
    "masked": is_masked_lm_model,
    "encoder-decoder": is_encoder_decoder_model,
    "multimodal": is_multimodal_model,
    "audio": is_audio_model,
}


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        (transformers.GPT2Config(architectures=["GPT2LMHeadModel"]), set()),
        (transformers.LlamaConfig(architectures=["LlamaForCausalLM"]), set()),
        (transformers.BertConfig(architectures=["BertForMaskedLM"]), {"masked"}),
        (transformers.BertConfig(architectures=["BertForNextSentencePrediction"]), set()),
        (transformers.T5Config(architectures=["T5ForConditionalGeneration"]), {"encoder-decoder"}),
        (transformers.Gemma3Config(architectures=["Gemma3ForConditionalGeneration"]), {"multimodal"}),
        (transformers.WhisperConfig(architectures=["WhisperForConditionalGeneration"]), {"encoder-decoder", "audio"}),
        (transformers.HubertConfig(architectures=["HubertForCTC"]), {"audio"}),
    ],
    ids=lambda value: value.architectures[0] if isinstance(value, transformers.PretrainedConfig) else None,
)
def test_each_class_is_of_its_kinds_alone(config, kinds, tmp_path):
    config.save_pretrained(tmp_path)
    assert {kind for kind, is_one in KINDS.items() if is_one(str(tmp_path))} == kinds
    assert get_architectures_for_config(config) == config.architectures


def test_a_configuration_may_not_say():
    assert get_architectures_for_config(transformers.GPT2Config()) == []
