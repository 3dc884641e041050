"""Reading a HuggingFace configuration: what was read is known, what nobody read must be the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformer_lens.errors import ConfigurationError

# Fields of any HF configuration that say nothing about the forward pass of a decoder in evaluation.
HARMLESS = frozenset(
    {
        # what the model is called, who made it, with what
        "architectures", "auto_map", "finetuning_task", "model_type", "tokenizer_class", "transformers_version",
        "unsloth_fixed", "unsloth_version", "language", "task_specific_params",
        # how it runs
        "attn_implementation", "chunk_size_feed_forward", "dtype", "experts_implementation", "gradient_checkpointing",
        "keys_to_ignore_at_inference", "output_attentions", "output_hidden_states", "output_router_logits",
        "output_scores", "pretraining_tp", "return_dict", "return_dict_in_generate", "torch_dtype", "torchscript",
        "use_bfloat16", "use_cache", "use_flash_attention", "use_flash_attn", "tie_word_embeddings",
        # how it was trained
        "activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout",
        "dropout", "embd_pdrop", "embed_dropout", "hidden_dropout", "hidden_dropout_prob", "init_std",
        "initializer_range", "layerdrop", "resid_dropout", "resid_pdrop", "router_aux_loss_coef", "router_z_loss_coef",
        "use_mup",
        # tokens, text and classes
        "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id", "do_sample",
        "eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "id2label", "label2id", "max_length",
        "max_sequence_length", "min_length", "model_max_length", "pad_token_id", "prefix", "problem_type",
        "sep_token_id", "suppress_tokens", "temperature", "top_k", "top_p",
        # heads and encoders beside the language model
        "cross_attention_hidden_size", "is_decoder", "is_encoder_decoder", "pruned_heads", "summary_activation",
        "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "tf_legacy_loss",
        "tie_encoder_decoder",
    }
)  # fmt: skip


class UnsupportedModelError(ConfigurationError):
    """A model that the native transformer does not hold; TransformerBridge may."""


class HFConfig(Mapping[str, Any]):
    """A HuggingFace configuration as a mapping that remembers which fields were read.

    Args:
        fields: the configuration as a dict.
        defaults: the same for a configuration of this type that sets nothing.

    Example:
        >>> config = HFConfig({"hidden_size": 8, "twist": 2}, defaults={"twist": 1})
        >>> config["hidden_size"], config.unread(frozenset())
        (8, {'twist': 2})
    """

    def __init__(self, fields: Mapping[str, Any], defaults: Mapping[str, Any] | None = None):
        self.fields = dict(fields)
        self.defaults = dict(defaults or {})
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        if name not in self.fields:
            raise ConfigurationError(f"The configuration (model_type {self.model_type!r}) has no field {name!r}.")
        return self.fields[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` where it is missing."""
        self.read.add(name)
        return self.fields.get(name, default)

    def __iter__(self) -> Any:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    @property
    def model_type(self) -> str:
        """HF's name of the kind of model."""
        return str(self.fields.get("model_type", ""))

    def unread(self, harmless: frozenset[str]) -> dict[str, Any]:
        """Fields nobody read whose value is not the default, by name.

        A field that transformers itself does not know and that is off (False, None, 0, empty) says nothing.
        """
        return {
            name: value
            for name, value in self.fields.items()
            if name not in self.read
            and name not in harmless
            and name not in HARMLESS
            and not name.startswith("_")
            and not _says_nothing(value, name in self.defaults, self.defaults.get(name))
        }


def _says_nothing(value: Any, known: bool, default: Any) -> bool:
    if not known or default is None:
        return not value
    return bool(default == value)
