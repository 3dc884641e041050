"""What kind of model a name means, by its configuration alone: transformers' tables say what each class does."""

from __future__ import annotations

from collections.abc import Mapping
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
    classes = [kind for table in tables for kind in table.values()]
    known = {name for kind in classes for name in ([kind] if isinstance(kind, str) else kind)}
    return bool(known & set(get_architectures_for_config(config)))
