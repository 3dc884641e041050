"""The ten numbers of a GPT-2-like model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class BasicConfig:
    """The sizes of a GPT-2-like model; those of GPT-2 where nothing is given. Exercises that build one by hand use it.

    Attributes:
        d_model, d_vocab, n_ctx, d_head, d_mlp, n_heads, n_layers: the sizes.
        debug: for the code that uses it.
        layer_norm_eps: what is added to the variance.
        init_range: standard deviation of initial weights.

    Example:
        >>> BasicConfig(n_layers=2).d_model
        768
    """

    d_model: int = 768
    debug: bool = True
    layer_norm_eps: float = 1e-5
    d_vocab: int = 50257
    init_range: float = 0.02
    n_ctx: int = 1024
    d_head: int = 64
    d_mlp: int = 3072
    n_heads: int = 12
    n_layers: int = 12
