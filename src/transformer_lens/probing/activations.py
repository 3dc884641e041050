"""Activations to probe: one vector for each example and layer."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.hooks import get_act_name


@torch.no_grad()
def layer_activations(
    model: Any,
    tokens: Int[Tensor, "example pos"],
    name: str = "resid_post",
    *,
    positions: int | Int[Tensor, "example"] = -1,
    batch_size: int = 32,
) -> Float[Tensor, "layer example width"]:
    """One activation at one position of each example, for every layer.

    Args:
        model: the model, on either host.
        tokens: rows of one length, without padding.
        name: a short name: "resid_pre", "resid_post", "attn_out", "mlp_out", "post" (neurons), "z" (heads side by
            side), ….
        positions: one position for all examples, or one for each.
        batch_size: rows that run at a time.

    Raises:
        UnknownNameError: the model has no such activation.
        ValueError: not one position for each example.

    Example:
        >>> from transformer_lens import HookedTransformer, demo
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> layer_activations(model, demo.ioi(6).tokens, "post").shape
        torch.Size([4, 6, 128])
    """
    where = torch.full((len(tokens),), positions) if isinstance(positions, int) else positions
    if where.shape != tokens.shape[:1]:
        raise ValueError(f"There are {len(tokens)} examples; got positions of shape {tuple(where.shape)}.")
    names = [get_act_name(name, layer) for layer in range(model.cfg.n_layers)]
    found = []
    for rows, at in zip(tokens.split(batch_size), where.split(batch_size), strict=True):
        _, cache = model.run_with_cache(rows, return_type=None, names_filter=names)
        picked = [cache[full][torch.arange(len(rows)), at].flatten(1) for full in names]
        found.append(torch.stack([values.to(picked[0].device) for values in picked]))
    return torch.cat(found, 1)
