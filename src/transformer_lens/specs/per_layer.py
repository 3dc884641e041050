"""HuggingFace configurations whose fields differ between layers, and refuse to be read as one (Gemma 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def per_layer_attr_names(config: Any) -> frozenset[str]:
    """The fields that differ between the layers of a configuration; none for those that are the same throughout.

    Example:
        >>> from transformers import Gemma4TextConfig, GPT2Config
        >>> per_layer_attr_names(Gemma4TextConfig(num_hidden_layers=6)), per_layer_attr_names(GPT2Config())
        (frozenset({'head_dim'}), frozenset())
    """
    # NOTE: transformers' own mark of such a configuration; its public names do not list the fields.
    heterogeneity = getattr(config, "_heterogeneity_spec", None)
    return frozenset() if heterogeneity is None else frozenset(heterogeneity.per_layer_attributes)


def per_layer_values(config: Any, name: str) -> list[Any]:
    """The value of a field at each layer.

    Raises:
        AttributeError: the configuration has no such field, or no layers.

    Example:
        >>> from transformers import Gemma4TextConfig
        >>> per_layer_values(Gemma4TextConfig(num_hidden_layers=6), "head_dim")
        [256, 256, 256, 256, 256, 512]
    """
    if name in per_layer_attr_names(config):
        return [getattr(layer, name) for layer in config.per_layer_config]
    return [getattr(config, name)] * config.num_hidden_layers


def majority_value(values: Sequence[Any]) -> Any:
    """The value that most have, the earliest of those that are equally frequent. Values need no hash.

    Raises:
        ValueError: there are none.

    Example:
        >>> majority_value([1, {"a": 2}, {"a": 2}]), majority_value([1, 2])
        ({'a': 2}, 1)
    """
    if not values:
        raise ValueError("The most frequent of no values is not defined.")
    return max(values, key=values.count)


def safe_config_get(config: Any, name: str, default: Any = None) -> Any:
    """A field of a configuration, that of most layers where it differs; `default` if there is no such field.

    Example:
        >>> from transformers import Gemma4TextConfig
        >>> config = Gemma4TextConfig(num_hidden_layers=6)
        >>> safe_config_get(config, "head_dim"), safe_config_get(config, "heads", 3)
        (256, 3)
    """
    if name in per_layer_attr_names(config):
        return majority_value(per_layer_values(config, name))
    return getattr(config, name, default)


class HetSafeConfigView:
    """A configuration to read: fields that differ between layers have the value of most layers.

    Args:
        config: the configuration; it is not copied.

    Example:
        >>> from transformers import Gemma4TextConfig
        >>> HetSafeConfigView(Gemma4TextConfig(num_hidden_layers=6)).head_dim
        256
    """

    def __init__(self, config: Any) -> None:
        object.__setattr__(self, "_config", config)

    def __getattr__(self, name: str) -> Any:
        config = object.__getattribute__(self, "_config")
        if name in per_layer_attr_names(config):
            return majority_value(per_layer_values(config, name))
        return getattr(config, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"A HetSafeConfigView only reads; set {name!r} on the configuration itself.")


def het_safe_view(config: Any) -> Any:
    """The configuration itself, or a HetSafeConfigView of it where fields differ between layers.

    Example:
        >>> from transformers import GPT2Config
        >>> config = GPT2Config()
        >>> het_safe_view(config) is config
        True
    """
    return HetSafeConfigView(config) if per_layer_attr_names(config) else config
