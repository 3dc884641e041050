"""What a configuration says of how weights are quantised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def quantization_method(config: Any) -> str | None:
    """The `quant_method` that a transformers configuration declares; None: its weights are plain, or it does not say.

    Args:
        config: the configuration, as an object or a dict; its `quantization_config` may be either too.

    Example:
        >>> quantization_method({"quantization_config": {"quant_method": "gptq"}}), quantization_method({})
        ('gptq', None)
    """
    inner = _field(config, "quantization_config")
    method = _field(inner, "quant_method")
    return None if method is None else str(getattr(method, "value", method))


def _field(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
