"""Initial weights, by the modes that configurations name."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transformer_lens.config import HookedTransformerConfig


def init_weights(model: nn.Module, cfg: HookedTransformerConfig) -> None:
    """Draw every weight matrix anew in place (`W`, `W_…`, linear layers, relative positions); biases become zero.

    "gpt2" draws from N(0, initializer_range²). "xavier_*" and "kaiming_*" scale by fan, times initializer_range.
    "muP" is kaiming_normal for hidden weights with the output layer scaled by 1 / d_model (arXiv 2203.03466).
    With `cfg.seed` the numbers depend on nothing else; torch's global generator is not touched.
    """
    generator = None
    if cfg.seed is not None:
        generator = torch.Generator("cpu").manual_seed(cfg.seed)
    for name, parameter in model.named_parameters():
        leaf = name.rsplit(".", 2)[-2] if name.endswith(".weight") else name.rsplit(".", 1)[-1]
        leaf = leaf.lstrip("_")
        if leaf in ("W", "rel_pos_bias") or leaf.startswith("W_"):
            values = _draw(leaf, parameter, cfg, generator, transposed=name.endswith(".weight"))
            parameter.data.copy_(values)
        elif leaf.startswith("b_"):
            parameter.data.zero_()


def _draw(
    leaf: str, parameter: Tensor, cfg: HookedTransformerConfig, generator: torch.Generator | None, transposed: bool
) -> Tensor:
    shape, scale = parameter.shape, cfg.initializer_range
    normal = torch.randn(shape, generator=generator)
    if cfg.init_mode == "gpt2":
        return normal * scale
    fan_in, fan_out = _fans(leaf, shape, transposed)
    if cfg.init_mode == "muP" and leaf == "W_U":
        return normal * scale / fan_in
    fan = fan_in if cfg.init_mode.startswith(("kaiming", "muP")) else (fan_in + fan_out) / 2
    deviation = scale / math.sqrt(fan)
    if cfg.init_mode.endswith("uniform"):
        return (2 * torch.rand(shape, generator=generator) - 1) * deviation * 3**0.5
    return normal * deviation


def _fans(leaf: str, shape: torch.Size, transposed: bool) -> tuple[int, int]:
    if leaf in ("W_Q", "W_K", "W_V"):  # [head, d_model, d_head]
        return shape[1], shape[0] * shape[2]
    if leaf == "W_O":  # [head, d_head, d_model]
        return shape[0] * shape[1], shape[2]
    if leaf in ("W_E", "W_pos", "W_token_type"):  # a look-up: its input is one row
        return 1, shape[1]
    return (shape[1], shape[0]) if transposed else (shape[0], shape[1])
