"""Reading a HuggingFace configuration: what was read is known, what nobody read must be the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformer_lens.errors import ConfigurationError

# Fields of any HF configuration that say nothing about the forward pass of a decoder in evaluation.
HARMLESS = frozenset(
    """_name_or_path architectures attention_dropout attn_implementation attn_pdrop auto_map bad_words_ids begin_suppress_tokens
    bos_token_id chunk_size_feed_forward classifier_dropout cross_attention_hidden_size decoder_start_token_id
    dtype dropout embd_pdrop embed_dropout eos_token_id experts_implementation finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing hidden_dropout id2label init_std initializer_range is_decoder is_encoder_decoder
    keys_to_ignore_at_inference label2id layerdrop max_length min_length model_type output_attentions
    output_hidden_states output_router_logits output_scores pad_token_id prefix problem_type pruned_heads resid_dropout
    resid_pdrop activation_dropout return_dict return_dict_in_generate router_aux_loss_coef sep_token_id
    suppress_tokens summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj task_specific_params tf_legacy_loss
    tie_encoder_decoder tokenizer_class torch_dtype torchscript transformers_version use_bfloat16 use_cache
    use_flash_attn use_mup pretraining_tp unsloth_version unsloth_fixed do_sample temperature top_k top_p
    tie_word_embeddings attention_probs_dropout_prob hidden_dropout_prob use_flash_attention""".split()
)


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
        """Fields nobody read whose value is not the default, by name."""
        return {
            name: value
            for name, value in self.fields.items()
            if name not in self.read
            and name not in harmless
            and name not in HARMLESS
            and not name.startswith("_")
            and not (name in self.defaults and _same(self.defaults[name], value))
        }


def _same(default: Any, value: Any) -> bool:
    return bool(default == value) or (value is None and default is None) or (default is None and value is False)
