"""Patching the residual stream at every layer and position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.patching.interventions import Intervention
from transformer_lens.patching.sweep import sweep


@torch.no_grad()
def patch_residual(
    model: Any,
    clean: Int[Tensor, "1 pos"],
    corrupted: Int[Tensor, "1 corrupted_pos"],
    metric: Callable[[Float[Tensor, "row pos d_vocab"]], Float[Tensor, "row"]],
    verbose: bool = False,
) -> Float[Tensor, "layer pos"]:
    """The metric of the corrupted run with the clean stream put in, for each layer and position.

    A sweep (`transformer_lens.patching.sweep`) with a cell for each; the numbers are those of one run for each patch.
    Source: Meng et al., arXiv 2202.05262 (causal tracing).

    Args:
        model: the model.
        clean: tokens of the run the patches come from.
        corrupted: tokens of the run that is patched; as many as the clean ones.
        metric: a number for each row of logits.
        verbose: show a progress bar.

    Raises:
        ValueError: the two prompts differ in length.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> clean = model.to_tokens("The Eiffel Tower is in")
        >>> corrupted = model.to_tokens("The Colosseum is in")
        >>> paris = model.to_single_token(" Paris")
        >>> result = patch_residual(model, clean, corrupted, lambda logits: logits[:, -1, paris])
        >>> result.shape == (model.cfg.n_layers, clean.shape[1])
        True
    """
    if clean.shape != corrupted.shape or clean.shape[0] != 1:
        raise ValueError(
            f"Patching needs two prompts of one row and equal length; got {tuple(clean.shape)} and "
            f"{tuple(corrupted.shape)} tokens."
        )
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(clean, return_type=None, names_filter=names)
    cells = [Intervention(name, cache, pos=position) for name in names for position in range(clean.shape[1])]
    return sweep(model, corrupted, cells, metric, verbose=verbose).reshape(len(names), clean.shape[1])
