"""Kinds of models, told from the configurations that transformers saves."""

import pytest
import transformers

from transformer_lens.models.architectures import (
    classify_architecture,
    classify_model_config,
    classify_model_name,
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


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "causal_lm",
            "GPT2LMHeadModel MistralForCausalLM BertModel BertForNextSentencePrediction ElectraForPreTraining Foo",
        ),
        ("masked_lm", "BertForMaskedLM AlbertForMaskedLM DistilBertForMaskedLM"),
        (
            "seq2seq",
            "T5ForConditionalGeneration MT5ForConditionalGeneration MarianMTModel BartForConditionalGeneration",
        ),
        (
            "multimodal",
            "LlavaForConditionalGeneration Gemma3ForConditionalGeneration Florence2ForConditionalGeneration",
        ),
        ("audio", "HubertModel HubertForCTC Wav2Vec2Model Wav2Vec2ForCTC"),
        ("vision", "ViTModel ViTForImageClassification DeiTModel"),
        # Those for which 4.3 has no entry: it calls them causal_lm.
        ("masked_lm", "DebertaV2ForMaskedLM"),
        ("multimodal", "Qwen2VLForConditionalGeneration MllamaForConditionalGeneration"),
        ("seq2seq", "WhisperForConditionalGeneration"),
    ],
)
def test_the_words_for_classes(kind, names):
    assert {name: classify_architecture(name) for name in names.split()} == dict.fromkeys(names.split(), kind)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (transformers.T5Config(), "seq2seq"),
        (transformers.WhisperConfig(), "seq2seq"),
        (transformers.BertConfig(), "causal_lm"),
        (transformers.BertConfig(architectures=["BertForMaskedLM"]), "masked_lm"),
        (transformers.GPT2Config(architectures=["GPT2LMHeadModel", "BertForMaskedLM"]), "masked_lm"),
        (transformers.ViTConfig(architectures=["ViTModel"]), "vision"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_words_for_configurations(config, kind, tmp_path):
    assert classify_model_config(config) == kind
    config.save_pretrained(tmp_path)
    assert classify_model_name(str(tmp_path)) == kind


def test_a_model_that_is_not_there_is_no_kind(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        classify_model_name(str(tmp_path / "nowhere"))
