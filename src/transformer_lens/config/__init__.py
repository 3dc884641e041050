"""Configurations of models."""

from transformer_lens.config.base import TransformerLensConfig
from transformer_lens.config.devices import default_device
from transformer_lens.config.hooked_transformer_config import SOFTCAP_DISABLED, HookedTransformerConfig
from transformer_lens.config.transformer_bridge_config import TransformerBridgeConfig

__all__ = [
    "SOFTCAP_DISABLED",
    "HookedTransformerConfig",
    "TransformerBridgeConfig",
    "TransformerLensConfig",
    "default_device",
]
