"""State dicts of native models: plain tensors going out, those of earlier versions coming in."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

OLD_BUFFERS = (".mask", ".IGNORE", ".rotary_sin", ".rotary_cos", ".alibi")


def keep_state_dicts_plain(model: nn.Module) -> None:
    """Have a native model (with a `cfg`) write contiguous tensors, and take checkpoints that hold masks and tables."""
    model.register_state_dict_post_hook(_contiguous)
    model.register_load_state_dict_pre_hook(_without_old_buffers)


def _contiguous(module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any]) -> None:
    # Strided parameters are written as plain ones, so that safetensors and friends take them.
    for name, value in state_dict.items():
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and not value.is_contiguous():
            state_dict[name] = value.contiguous()


def _without_old_buffers(
    module: Any,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    # Checkpoints of 2.x and 3.x hold masks and rotary tables, which are computed here.
    # NOTE: 3.x kept a W_pos beside alibi, unread.
    learned = module.cfg.learns_positions()
    unused = [] if learned else [f"{prefix}pos_embed.W_pos"]
    for name in [name for name in state_dict if name.endswith(OLD_BUFFERS) or name in unused]:
        del state_dict[name]
