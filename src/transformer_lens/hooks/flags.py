"""Switches that decide what *caching everything* stores. Naming a hook always works, whatever they say."""

from __future__ import annotations

from typing import Any

from transformer_lens.errors import ConfigurationError


class CachingFlags:
    """The switches of a model with a `cfg`."""

    cfg: Any

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether caching everything stores each head's output (naming its hook always works)."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Whether caching everything stores separate q, k and v inputs (naming their hooks always works)."""
        if use_split_qkv_input and self.cfg.use_attn_in:
            raise ConfigurationError("use_attn_in is on: one input for all three, or one for each, not both.")
        self.cfg.use_split_qkv_input = use_split_qkv_input

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Whether caching everything stores the attention input of each head (naming its hook always works)."""
        if use_attn_in and self.cfg.use_split_qkv_input:
            raise ConfigurationError("use_split_qkv_input is on: one input for all three, or one for each, not both.")
        self.cfg.use_attn_in = use_attn_in

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Whether caching everything stores the MLP input before ln2 (naming its hook always works)."""
        if use_hook_mlp_in and self.cfg.attn_only:
            raise ConfigurationError("use_hook_mlp_in has no effect: this model is attention-only.")
        self.cfg.use_hook_mlp_in = use_hook_mlp_in
