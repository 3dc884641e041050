"""The resolver: where the parts of a transformers model are that no spec describes, read off its tree and one pass."""

from transformer_lens.wrapped.resolver.anatomy import ResolvedAnatomy, resolve

__all__ = ["ResolvedAnatomy", "resolve"]
