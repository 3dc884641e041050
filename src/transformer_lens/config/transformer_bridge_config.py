"""TransformerBridgeConfig: what is known of a wrapped transformers model, in the words of this library."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.errors import ConfigurationError

# The order in which existing code gives fields by position.
_POSITIONS = (
    "d_model", "d_head", "n_layers", "n_ctx", "n_heads", "d_vocab", "architecture", "tokenizer_prepends_bos",
    "tokenizer_appends_eos", "default_padding_side", "model_name", "act_fn", "eps",
)  # fmt: skip
# What a model computes that the native transformer does not, by field.
_ONLY_WRAPPED = (
    "qk_norm_after_rope", "rotary_interleaved_cos_sin", "per_layer_head_dim", "per_layer_num_key_value_heads",
    "scale_embedding", "is_audio_model", "is_visual_model", "is_stateful", "is_multimodal",
)  # fmt: skip


@dataclass
class _Described(HookedTransformerConfig):
    """The fields of a TransformerBridgeConfig; see there."""

    architecture: str | None = None
    tokenizer_appends_eos: bool = False
    default_padding_side: Literal["left", "right"] | None = None
    qk_norm_after_rope: bool = False
    rotary_interleaved_cos_sin: bool = False
    per_layer_head_dim: list[int] | None = None
    per_layer_num_key_value_heads: list[int] | None = None
    scale_embedding: bool | None = None
    rmsnorm_uses_offset: bool = False
    attn_implementation: str | None = None
    is_audio_model: bool = False
    is_visual_model: bool = False
    is_stateful: bool = False
    is_multimodal: bool = False
    vision_hidden_size: int | None = None
    vision_num_layers: int | None = None
    vision_num_heads: int | None = None
    mm_tokens_per_image: int | None = None

    def __post_init__(self) -> None:
        if self.n_heads == -1 and self.d_model % self.d_head == 0:
            self.n_heads = self.d_model // self.d_head
        self._derive()


class TransformerBridgeConfig(_Described):
    """Configuration of a TransformerBridge: the fields of HookedTransformerConfig that its family's spec can say.

    It describes a model that transformers runs; nothing is computed from it but where hooks sit and what analyses need
    (sizes, norms, caps). Combinations that the native transformer refuses are therefore allowed. A bridge fills in
    what its model and tokenizer say.

    Attributes:
        architecture: transformers' name of the class.
        tokenizer_appends_eos, default_padding_side: what the tokenizer does by itself.
        qk_norm_after_rope, rotary_interleaved_cos_sin: queries and keys are normed after rotation; cos and sin stand
            in pairs.
        per_layer_head_dim, per_layer_num_key_value_heads: at each layer, where they differ.
        scale_embedding: embeddings are multiplied by a factor.
        rmsnorm_uses_offset: transformers keeps weights of RMS norms less one.
        attn_implementation: how transformers computes attention while nobody looks at scores or patterns.
        is_audio_model, is_visual_model, is_multimodal: what it takes beside text, or instead.
        is_stateful: it has state space layers.
        vision_hidden_size, vision_num_layers, vision_num_heads, mm_tokens_per_image: of the part that sees.

    Example:
        >>> TransformerBridgeConfig(d_model=8, d_head=4, n_layers=1, n_ctx=16, d_vocab=20).n_heads
        2
    """

    def __init__(self, *values: Any, **given: Any):
        if len(values) > len(_POSITIONS):
            raise TypeError(f"Give fields after {_POSITIONS[-1]} by name; got {len(values)} without.")
        named = dict(zip(_POSITIONS, values, strict=False))
        if twice := sorted(named.keys() & given.keys()):
            raise TypeError(f"{', '.join(twice)} is given twice, by position and by name.")
        super().__init__(**named, **given)

    @property
    def head_dim(self) -> int:
        """d_head, under transformers' name."""
        return self.d_head

    def for_native(self) -> dict[str, Any]:
        """The fields of a HookedTransformerConfig.

        Raises:
            ConfigurationError: it describes a model that the native transformer does not hold.
        """
        if other := [name for name in _ONLY_WRAPPED if getattr(self, name)]:
            raise ConfigurationError(f"The native transformer has no {', '.join(other)}.")
        ours = {field.name for field in fields(HookedTransformerConfig)}
        return {name: value for name, value in self.to_dict().items() if name in ours}
