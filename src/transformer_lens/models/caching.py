"""Runs whose activations come as an ActivationCache."""

from __future__ import annotations

from typing import Any

from transformer_lens.cache.activation_cache import ActivationCache
from transformer_lens.hooks import HookedRootModule


class Caching(HookedRootModule):
    """`run_with_cache`."""

    def run_with_cache(
        self, *model_args: Any, return_cache_object: bool = True, remove_batch_dim: bool = False, **kwargs: Any
    ) -> tuple[Any, Any]:
        """What the model returns, and its activations as an ActivationCache (or a plain dict).

        Args:
            model_args: as for `forward`.
            return_cache_object: False gives a plain dict.
            remove_batch_dim: drop the batch axis, which must be 1.
            kwargs: arguments of `forward` and of `HookedRootModule.run_with_cache` (names_filter, device, pos_slice,
                incl_bwd, …).
        """
        output, store = super().run_with_cache(*model_args, remove_batch_dim=remove_batch_dim, **kwargs)
        if not return_cache_object:
            return output, store
        return output, ActivationCache(store, self, has_batch_dim=not remove_batch_dim)
