"""A bridge whose weights were drawn rather than trained: the control of what is found in a trained one."""

from __future__ import annotations

from typing import Any

import torch

from transformer_lens.models.transformer_bridge import TransformerBridge


def random_init_bridge(
    model_name: str,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    **boot_kwargs: Any,
) -> TransformerBridge:
    """A bridge over a model of this architecture, its weights drawn as transformers initialises them.

    Args:
        model_name: whose configuration it has; its weights are not loaded.
        seed: of the draw; torch's own generator is left alone.
        dtype, device: of the weights.
        boot_kwargs: further arguments of `TransformerBridge.boot_transformers`.

    Example:
        >>> bridge = random_init_bridge("demo", seed=0)
        >>> bool((bridge.W_E == random_init_bridge("demo", seed=0).W_E).all())
        True
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TransformerBridge.boot_transformers(
            model_name, load_weights=False, dtype=dtype, device=device, **boot_kwargs
        )
