"""TransformerBridgeConfig: what is known of a wrapped transformers model, in the words of this library."""

from __future__ import annotations

from dataclasses import dataclass

from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig


@dataclass
class TransformerBridgeConfig(HookedTransformerConfig):
    """Configuration of a TransformerBridge: the fields of HookedTransformerConfig that its family's spec can say.

    It describes a model that transformers runs; nothing is computed from it but where hooks sit and what analyses need
    (sizes, norms, caps). Combinations that the native transformer refuses are therefore allowed.

    Attributes:
        architecture: transformers' name of the class.

    Example:
        >>> TransformerBridgeConfig(d_model=8, d_head=4, n_layers=1, n_ctx=16, d_vocab=20).n_heads
        2
    """

    architecture: str | None = None

    def __post_init__(self) -> None:
        if self.n_heads == -1 and self.d_model % self.d_head == 0:
            self.n_heads = self.d_model // self.d_head
        self._derive()
