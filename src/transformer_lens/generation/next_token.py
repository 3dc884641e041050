"""The next token from logits: drawn, or listed with its probability."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.extras import import_extra
from transformer_lens.text import Tokenizer
from transformer_lens.text.tokenizer import decode_ids


def sample_logits(
    final_logits: Float[Tensor, "batch d_vocab"],
    top_k: int | None = None,
    top_p: float | None = None,
    temperature: float = 1.0,
    freq_penalty: float = 0.0,
    repetition_penalty: float = 1.0,
    tokens: Int[Tensor, "batch pos"] | None = None,
) -> Int[Tensor, "batch"]:
    """One token for each row, drawn from the softmax of its logits; the likeliest at temperature 0.

    Args:
        final_logits: at the last position.
        top_k: only the k likeliest; None: all. Ties with the k-th stay.
        top_p: only the likeliest, as many as are needed to reach this probability (Holtzman et al. 2019); None: all.
        temperature: what logits are divided by.
        freq_penalty: taken off a token's logit for each time it is in `tokens`, after the temperature.
        repetition_penalty: what the positive logits of tokens in `tokens` are divided by, and their negative ones
            multiplied with (Keskar et al. 2019).
        tokens: the rows so far, for the penalties.

    Raises:
        ValueError: a setting out of its range, or a penalty without tokens.

    Example:
        >>> sample_logits(torch.tensor([[0.0, 5.0, 1.0]]), temperature=0.0)
        tensor([1])
    """
    _check(top_k=top_k, top_p=top_p, temperature=temperature, repetition_penalty=repetition_penalty)
    if tokens is None and (freq_penalty, repetition_penalty) != (0.0, 1.0):
        raise ValueError("freq_penalty and repetition_penalty need the tokens so far: give tokens=[batch, pos].")
    logits = final_logits
    if tokens is not None and repetition_penalty != 1.0:
        seen = logits.gather(1, tokens)
        weaker = torch.where(seen > 0, seen / repetition_penalty, seen * repetition_penalty)
        logits = logits.scatter(1, tokens, weaker)
    logits = logits / (temperature or 1.0)
    if tokens is not None and freq_penalty:
        counts = torch.zeros_like(logits).scatter_add_(1, tokens, torch.ones_like(tokens, dtype=logits.dtype))
        logits = logits - freq_penalty * counts
    if temperature == 0.0:
        return logits.argmax(-1)
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1]), -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        logits = _nucleus(logits, top_p)
    return torch.multinomial(logits.softmax(-1), 1)[:, 0]


def _nucleus(logits: Float[Tensor, "batch d_vocab"], top_p: float) -> Float[Tensor, "batch d_vocab"]:
    sorted_logits, order = logits.sort(-1, descending=True)
    probabilities = sorted_logits.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # what the likelier tokens have together
    return logits.masked_fill((before >= top_p).gather(-1, order.argsort(-1)), -torch.inf)


def _check(*, top_k: int | None, top_p: float | None, temperature: float, repetition_penalty: float) -> None:
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; it is 0 (the likeliest token) or more.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it is at least 1, or None for all tokens.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it is a probability above 0, or None for all tokens.")
    if repetition_penalty <= 0:
        raise ValueError(f"repetition_penalty is {repetition_penalty}; it is above 0, and 1 changes nothing.")


def logits_to_df(logits: Float[Tensor, "d_vocab"], tokenizer: Tokenizer | None = None, top_k: int | None = None) -> Any:
    """A pandas table of tokens, likeliest first: token_id, logit, log_prob (nats), prob, and token if it can be read.

    Args:
        logits: of one position.
        tokenizer: reads the tokens.
        top_k: so many rows; None: the whole vocabulary.

    Raises:
        ValueError: logits with more than one axis, or a top_k below 1.
        MissingExtraError: pandas is not installed.
    """
    if logits.ndim != 1:
        raise ValueError(f"The logits of one position are needed, [d_vocab]; got shape {tuple(logits.shape)}.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it is at least 1, or None for all tokens.")
    pandas = import_extra("pandas", "A table of logits", "pandas")
    wide = logits.detach().float().cpu()
    values, ids = wide.topk(min(top_k or len(wide), len(wide)))
    log_probs = wide.log_softmax(-1)[ids]
    columns: dict[str, Any] = {"token_id": ids.numpy(), "logit": values.numpy(), "log_prob": log_probs.numpy()}
    columns["prob"] = log_probs.exp().numpy()
    if tokenizer is not None:
        columns["token"] = [decode_ids(tokenizer, [token]) for token in ids.tolist()]
    return pandas.DataFrame(columns)
