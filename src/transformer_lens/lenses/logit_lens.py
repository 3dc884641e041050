"""The logit lens: what the model would predict if it stopped after each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.cache.activation_cache import ActivationCache


@dataclass(frozen=True)
class LogitLens:
    """What each layer's stream predicts at each position.

    Attributes:
        labels: "0_pre", "1_pre", …, "final_post": which stream each row is.
        top_tokens: the likeliest next token, [row, batch, pos].
        top_probabilities: its probability, [row, batch, pos].
        entropy: of the prediction, in nats, [row, batch, pos].
        kl_to_final: Kullback-Leibler divergence of the final prediction from the row's, in nats, [row, batch, pos].
    """

    labels: list[str]
    top_tokens: Int[Tensor, "row batch pos"]
    top_probabilities: Float[Tensor, "row batch pos"]
    entropy: Float[Tensor, "row batch pos"]
    kl_to_final: Float[Tensor, "row batch pos"]


@torch.no_grad()
def logit_lens(model: Any, cache: ActivationCache) -> LogitLens:
    """The final norm and the unembedding applied to the stream before each layer, and after the last.

    Only one row's logits exist at a time. Source: nostalgebraist, "interpreting GPT: the logit lens", 2020.

    Args:
        model: the model that made the cache.
        cache: a run that holds every `hook_resid_pre` and the last `hook_resid_post`, with its batch axis.

    Raises:
        UnknownNameError: the cache lacks one of them.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> _, cache = model.run_with_cache("The Eiffel Tower is in")
        >>> lens = logit_lens(model, cache)
        >>> model.to_string(lens.top_tokens[-1, 0, -1])
        ' Paris'
    """
    n_layers = model.cfg.n_layers
    streams = [("resid_pre", layer) for layer in range(n_layers)] + [("resid_post", n_layers - 1)]
    final = model.logits(cache[streams[-1]]).log_softmax(-1)
    rows = []
    for key in streams:
        log_probabilities = model.logits(cache[key]).log_softmax(-1)
        probabilities = log_probabilities.exp()
        best, token = probabilities.max(-1)
        entropy = -(probabilities * log_probabilities).sum(-1)
        kl = (final.exp() * (final - log_probabilities)).sum(-1)
        rows.append((token, best, entropy, kl))
    tokens, best, entropy, kl = (torch.stack(column) for column in zip(*rows, strict=True))
    return LogitLens([*(f"{layer}_pre" for layer in range(n_layers)), "final_post"], tokens, best, entropy, kl)
