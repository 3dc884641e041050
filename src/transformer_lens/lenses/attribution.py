"""Direct logit attribution: how much each head adds to the difference between two logits."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.cache.activation_cache import ActivationCache


@torch.no_grad()
def head_attribution(
    model: Any,
    cache: ActivationCache,
    answer: Int[Tensor, "batch"] | int,
    wrong: Int[Tensor, "batch"] | int,
    pos: int = -1,
) -> Float[Tensor, "batch layer head"]:
    """What each head's output at one position adds to logit(answer) - logit(wrong), directly.

    The final norm is linear once its scale is known, and the scale of the cached run is used. What heads write through
    later layers is not counted. Source: Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021.

    Args:
        model: the model that made the cache.
        cache: a run that holds every `hook_z` and `ln_final.hook_scale`, with its batch axis.
        answer: the token whose logit counts for, for each row.
        wrong: the token whose logit counts against, for each row.
        pos: the position that predicts.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> _, cache = model.run_with_cache("The Eiffel Tower is in")
        >>> paris, rome = model.to_single_token(" Paris"), model.to_single_token(" Rome")
        >>> head_attribution(model, cache, paris, rome).shape == (1, model.cfg.n_layers, model.cfg.n_heads)
        True
    """
    direction = _read_by_logits(model, answer) - _read_by_logits(model, wrong)
    z = torch.stack([cache["z", layer][:, pos] for layer in range(model.cfg.n_layers)], 1)
    scale = cache["scale"][:, pos] if "scale" in cache else torch.ones(z.shape[0], 1)
    written = torch.einsum("blhk,lhkd,bd->blh", z, model.W_O, direction.expand(z.shape[0], -1))
    return written / scale[:, None].to(written.device)


def _read_by_logits(model: Any, token: Int[Tensor, "batch"] | int) -> Float[Tensor, "batch d_model"]:
    # The direction in the stream, before the final norm divides, that raises this token's logit.
    tokens = torch.as_tensor(token, device=model.W_U.device).reshape(-1)
    direction: Tensor = model.W_U.T[tokens]
    kind = model.cfg.normalization_type
    if kind is None:
        return direction
    direction = direction * model.ln_final.w
    if kind.startswith("LN") and not model.cfg.final_rms:
        direction = direction - direction.mean(-1, keepdim=True)
    return direction
