"""Rules that several families share: from fields of an HF configuration to fields of ours."""

from __future__ import annotations

from typing import Any

from transformer_lens.errors import ConfigurationError
from transformer_lens.specs.reading import HFConfig

ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_new", "gelu_fast": "gelu_fast", "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "gelu_python": "gelu", "quick_gelu": "quick_gelu", "relu": "relu", "relu2": "relu2", "silu": "silu",
    "swish": "silu", "tanh": "tanh", "xielu": "xielu",
}  # fmt: skip


def activation(field: str) -> Any:
    """A rule that reads the activation function from `field`."""

    def rule(config: HFConfig) -> dict[str, Any]:
        name = config[field]
        if name not in ACTIVATIONS:
            raise ConfigurationError(f"{field}={name!r} is no activation function that HookedTransformer has.")
        return {"act_fn": ACTIVATIONS[name]}

    return rule


def heads_of_width(width: str, heads: str) -> Any:
    """A rule for heads that divide the model's width evenly."""

    def rule(config: HFConfig) -> dict[str, Any]:
        return {"n_heads": config[heads], "d_head": config[width] // config[heads]}

    return rule


def four_times(inner: str, width: str) -> Any:
    """A rule for an MLP that is four times as wide as the model unless `inner` says otherwise."""

    def rule(config: HFConfig) -> dict[str, Any]:
        return {"d_mlp": config.get(inner) or 4 * config[width]}

    return rule
