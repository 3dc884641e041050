"""What kind of model a name means, by its configuration alone: transformers' tables say what each class does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from transformer_lens import demo

Table = Mapping[str, Any]
MASKED: tuple[Table, ...] = (modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,)
MULTIMODAL: tuple[Table, ...] = (modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,)
AUDIO: tuple[Table, ...] = (
    modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)
VISION: tuple[Table, ...] = (modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,)
SEQ2SEQ: tuple[Table, ...] = (
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)
# The words for kinds of models, in the order in which a class that is of several is told.
KINDS: dict[str, tuple[Table, ...]] = {
    "multimodal": MULTIMODAL,
    "seq2seq": SEQ2SEQ,
    "masked_lm": MASKED,
    "audio": AUDIO,
    "vision": VISION,
}
# Kinds to which the bare model of a type belongs too (HubertModel), as it has no other use.
BARE = ("audio", "vision")


def classify_architecture(architecture: str) -> str:
    """What a class of transformers' is: "seq2seq", "masked_lm", "multimodal", "audio", "vision" or "causal_lm".

    What none of its tables names counts as "causal_lm". Costs no network: the tables say it.

    Example:
        >>> classify_architecture("BertForMaskedLM"), classify_architecture("GPT2LMHeadModel")
        ('masked_lm', 'causal_lm')
    """
    return next((kind for kind in KINDS if architecture in _classes(kind)), "causal_lm")


def classify_model_config(config: Any) -> str:
    """What a model of this configuration is, in the words of `classify_architecture`.

    With encoder and decoder it is "seq2seq"; else the first of its classes that is no "causal_lm" decides.

    Example:
        >>> classify_model_config(transformers.T5Config()), classify_model_config(transformers.GPT2Config())
        ('seq2seq', 'causal_lm')
    """
    if config.to_dict().get("is_encoder_decoder", False):
        return "seq2seq"
    kinds = [classify_architecture(name) for name in get_architectures_for_config(config)]
    return next((kind for kind in kinds if kind != "causal_lm"), "causal_lm")


def classify_model_name(model_name: str, trust_remote_code: bool = False, token: str | None = None) -> str:
    """What the model of this name is, in the words of `classify_architecture`. Arguments as below.

    Raises:
        OSError: there is no such model, or the hub cannot be reached.

    Example:
        >>> classify_model_name("demo")
        'causal_lm'
    """
    return classify_model_config(_config(model_name, trust_remote_code, token))


def get_architectures_for_config(config: Any) -> list[str]:
    """The classes that a configuration says its weights were saved from; empty if it does not say.

    Example:
        >>> get_architectures_for_config(transformers.BertConfig(architectures=["BertForMaskedLM"]))
        ['BertForMaskedLM']
    """
    return list(config.architectures or [])


def is_masked_lm_model(model_name: str, trust_remote_code: bool = False, token: str | None = None) -> bool:
    """Whether a model was saved as one that fills in masked tokens (BERT).

    Args:
        model_name: a folder, a name on the hub, or "demo". Only the configuration is read.
        trust_remote_code: let configuration code from the hub run.
        token: for gated models.

    Example:
        >>> is_masked_lm_model("demo")
        False
    """
    return _is_one_of(_config(model_name, trust_remote_code, token), MASKED)


def is_encoder_decoder_model(model_name: str, trust_remote_code: bool = False, token: str | None = None) -> bool:
    """Whether a model has an encoder and a decoder (T5, Whisper). Arguments as above.

    Example:
        >>> is_encoder_decoder_model("demo")
        False
    """
    return bool(_config(model_name, trust_remote_code, token).to_dict().get("is_encoder_decoder", False))


def is_multimodal_model(model_name: str, trust_remote_code: bool = False, token: str | None = None) -> bool:
    """Whether a model was saved as one that reads pictures and text, and writes text. Arguments as above.

    Example:
        >>> is_multimodal_model("demo")
        False
    """
    return _is_one_of(_config(model_name, trust_remote_code, token), MULTIMODAL)


def is_audio_model(model_name: str, trust_remote_code: bool = False, token: str | None = None) -> bool:
    """Whether a model was saved as one that hears: recognises speech, or classifies sound. Arguments as above.

    Example:
        >>> is_audio_model("demo")
        False
    """
    return _is_one_of(_config(model_name, trust_remote_code, token), AUDIO)


def _config(model_name: str, trust_remote_code: bool, token: str | None) -> Any:
    name = str(demo.folder()) if model_name.lower() == "demo" else model_name
    return transformers.AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, token=token)


def _is_one_of(config: Any, tables: tuple[Table, ...]) -> bool:
    return bool(_named(tables) & set(get_architectures_for_config(config)))


def _named(tables: tuple[Table, ...]) -> set[str]:
    classes = [kind for table in tables for kind in table.values()]
    return {name for kind in classes for name in ([kind] if isinstance(kind, str) else kind)}


@cache
def _classes(kind: str) -> set[str]:
    types = {name for table in KINDS[kind] for name in table} if kind in BARE else set()
    bare = {
        name: modeling_auto.MODEL_MAPPING_NAMES[name] for name in types if name in modeling_auto.MODEL_MAPPING_NAMES
    }
    return _named((*KINDS[kind], bare))
