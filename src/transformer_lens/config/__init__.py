"""Configurations of models."""

from transformer_lens.config.base import TransformerLensConfig
from transformer_lens.config.devices import default_device
from transformer_lens.config.hooked_transformer_config import SOFTCAP_DISABLED, HookedTransformerConfig

__all__ = ["SOFTCAP_DISABLED", "HookedTransformerConfig", "TransformerLensConfig", "default_device"]
