"""How every logit moves when a direction is added to a stream: exact, through all that follows."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from transformer_lens.lenses.runs import token_rows


def logit_derivative(
    model: Any,
    tokens: str | Int[Tensor, "*batch pos"],
    direction: Float[Tensor, "d_model"],
    *,
    layer: int,
    position: int = -1,
) -> Float[Tensor, "batch pos d_vocab"]:
    """How every logit changes with the stream entering a layer, per unit of a direction added at one position.

    Exact (forward-mode differentiation), through all later layers and positions. At the final stream it is the
    linearised logit lens: what `ActivationCache.logit_attrs` says of the direction, and the norm's scale let move.

    Args:
        model: the model, on either host.
        tokens: a text or token ids, without padding.
        direction: along which the stream is moved.
        layer: whose input is moved; n_layers: the final stream.
        position: where; negative: from the end.

    Raises:
        ValueError: a layer that does not exist, or a direction of another width.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> rome = model.W_U[:, model.to_single_token(" Rome")]
        >>> derivative = logit_derivative(model, "The Eiffel Tower is in", rome, layer=3)
        >>> model.to_string(derivative[0, -1].argmax())
        ' Rome'
    """
    n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
    if not 0 <= layer <= n_layers:
        raise ValueError(f"layer is from 0 to {n_layers} ({n_layers}: the final stream); got {layer}.")
    if direction.shape != (d_model,):
        raise ValueError(f"direction has shape [{d_model}]; got {tuple(direction.shape)}.")
    with torch.no_grad():
        stream: Tensor = model(token_rows(model, tokens), stop_at_layer=layer)
    moved = torch.zeros_like(stream)
    moved[:, position] = direction.to(moved)

    def logits(x: Tensor) -> Tensor:
        out: Tensor = model(x, start_at_layer=layer)
        return out

    # NOTE: the fused attention kernels have no forward-mode derivative.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        derivative: Tensor = torch.func.jvp(logits, (stream,), (moved,))[1]
    return derivative.detach()
