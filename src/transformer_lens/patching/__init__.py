"""Patching: put activations of one run into another, many at a time, and see what changes."""

from transformer_lens.patching.residual import patch_residual

__all__ = ["patch_residual"]
