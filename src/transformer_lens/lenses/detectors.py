"""Which heads look at the previous token, and which continue a repeated sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class HeadScores:
    """Mean attention of each head to a place, over random repeated tokens; each [layer, head], from 0 to 1.

    Attributes:
        previous_token: to the token before.
        duplicate_token: to the earlier copy of the same token.
        induction: to the token after the earlier copy.
    """

    previous_token: Float[Tensor, "layer head"]
    duplicate_token: Float[Tensor, "layer head"]
    induction: Float[Tensor, "layer head"]


@torch.no_grad()
def head_scores(model: Any, length: int = 30, batch: int = 8, seed: int = 0) -> HeadScores:
    """How much each head attends to the previous, the duplicate and the induction token.

    Random tokens are run twice in a row, so that nothing but the repetition can be known.
    Source: Olsson et al., "In-context Learning and Induction Heads", 2022.

    Args:
        model: a model with at least 2 * length + 1 positions.
        length: tokens before the repetition.
        batch: how many sequences the scores are averaged over.
        seed: of the random tokens.

    Raises:
        ValueError: the repeated sequence is longer than the model's context.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> scores = head_scores(HookedTransformer.from_pretrained("demo"))
        >>> bool(scores.induction.max() > 0.5)
        True
    """
    if 2 * length + 1 > model.cfg.n_ctx:
        raise ValueError(f"2 * {length} + 1 tokens do not fit n_ctx={model.cfg.n_ctx}: choose a smaller length.")
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(0, model.cfg.d_vocab, (batch, length), generator=generator)
    parts = [half, half]
    if model.tokenizer is not None and model.codec.bos_id is not None:
        parts.insert(0, torch.full((batch, 1), model.codec.bos_id))
    tokens = torch.cat(parts, 1).to(model.W_E.device)
    _, cache = model.run_with_cache(
        tokens, return_type=None, names_filter=lambda name: name.endswith("hook_pattern"), attention_mask=None
    )
    patterns = torch.stack([cache["pattern", layer] for layer in range(model.cfg.n_layers)])

    def attention_back(distance: int) -> Tensor:
        second_half = patterns[:, :, :, -length:]  # [layer, batch, head, query, key]
        return second_half.diagonal(tokens.shape[1] - length - distance, -2, -1).mean((1, 3))

    return HeadScores(attention_back(1), attention_back(length), attention_back(length - 1))
