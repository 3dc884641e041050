"""Generate: token ids in, longer token ids out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from transformer_lens.errors import ConfigurationError, nearest
from transformer_lens.generation.adapter import driver_of
from transformer_lens.generation.options import GenerationOptions


class _FrequencyPenalty(LogitsProcessor):
    def __init__(self, penalty: float, temperature: float, mask: Int[Tensor, "batch pos"] | None):
        # It is meant after the temperature, which transformers applies last.
        self.amount = penalty * temperature
        self.mask = mask

    def __call__(
        self, input_ids: Int[Tensor, "batch pos"], scores: Float[Tensor, "batch d_vocab"]
    ) -> Float[Tensor, "batch d_vocab"]:
        seen = torch.ones_like(input_ids, dtype=scores.dtype)
        if self.mask is not None:
            beams = input_ids.shape[0] // self.mask.shape[0]
            # Padding is no part of a row.
            seen[:, : self.mask.shape[1]] = self.mask.repeat_interleave(beams, 0).to(scores.dtype)
        counts = torch.zeros_like(scores).scatter_add_(1, input_ids, seen)
        return scores - self.amount * counts


class _StayEnded(LogitsProcessor):
    """Rows that ended in an earlier piece of a stream get nothing but the end token."""

    def __init__(self, ended: Bool[Tensor, "batch"], eos: int):
        self.ended, self.eos = ended, eos

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Float[Tensor, "batch d_vocab"]:
        only_eos = torch.full_like(scores, -torch.inf)
        only_eos[:, self.eos] = 0.0
        return torch.where(self.ended[:, None], only_eos, scores)


class _Progress(StoppingCriteria):
    def __init__(self, bar: Any):
        self.bar = bar

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Bool[Tensor, "batch"]:
        self.bar.update(1)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class _Remember(StoppingCriteria):
    """A criterion, and whether it was met."""

    def __init__(self, criterion: StoppingCriteria):
        self.criterion, self.met = criterion, False

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        answer = self.criterion(input_ids, scores, **kwargs)
        self.met = self.met or bool(torch.as_tensor(answer).any())
        return answer


def generate(
    model: Any,
    tokens: Int[Tensor, "batch pos"] | None,
    options: GenerationOptions,
    *,
    embeddings: Float[Tensor, "batch pos d_model"] | None = None,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    tokenizer: Any = None,
) -> Any:
    """The rows of `tokens` continued, [batch, pos + new]; for embeddings the new tokens alone.

    Hooks on the model run at each step; with a key-value cache a step sees the new tokens only.

    Args:
        model: the native transformer, or a wrapped one.
        tokens: what to continue; None if embeddings are given.
        options: how.
        embeddings: a stream of embeddings to continue, in place of tokens.
        attention_mask: 1 for tokens, 0 for padding, which must be on the left; None: no padding.
        tokenizer: for stop strings.

    Raises:
        ValueError: more tokens than learned positions; an option that transformers' generate refuses.
    """
    given = tokens if tokens is not None else embeddings
    if given is None:
        raise ValueError("Either tokens or embeddings must be given.")
    with prompted(model, given.shape[1]):
        return _run(model, given, attention_mask, options, tokenizer, None, [])


def generate_stream(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    options: GenerationOptions,
    *,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    max_tokens_per_yield: int = 25,
    tokenizer: Any = None,
) -> Iterator[Int[Tensor, "batch piece"]]:
    """Pieces that make up what `generate` returns when put together; the first begins with `tokens`.

    Args:
        model, tokens, options, attention_mask: as for `generate`.
        max_tokens_per_yield: the length of a piece, the prompt included (but at least one new token).
        tokenizer: for stop strings.

    Raises:
        ValueError: several rows, with texts or criteria that end a row: which of them ended would be lost.
    """
    stops = [_Remember(criterion) for criterion in options.stopping_criteria]
    if options.stop_strings is not None:
        stops.append(_Remember(StopStringCriteria(tokenizer, options.stop_strings)))
    if stops and tokens.shape[0] > 1:
        raise ValueError("stop_strings and stopping_criteria are for streams of one row: stream rows one by one.")
    options = replace(options, stop_strings=None, stopping_criteria=tuple(stops))
    start = tokens.shape[1]
    seen, shown, done = tokens, 0, 0
    cache = DynamicCache() if options.use_past_kv_cache else None
    ended = torch.zeros(tokens.shape[0], dtype=torch.bool, device=tokens.device)
    while done < options.max_new_tokens and not bool(ended.all() and options.eos_token_ids):
        if any(stop.met for stop in stops):
            return
        wanted = max(1, max_tokens_per_yield - (seen.shape[1] - shown))
        piece = replace(options, max_new_tokens=min(wanted, options.max_new_tokens - done))
        extra = [_StayEnded(ended, options.eos_token_ids[0])] if options.eos_token_ids else []
        with prompted(model, start):
            seen = _run(model, seen, attention_mask, piece, None, cache, extra)
        yield seen[:, shown:]
        if attention_mask is not None:
            new = seen.shape[1] - attention_mask.shape[1]
            attention_mask = torch.cat([attention_mask, attention_mask.new_ones(tokens.shape[0], new)], 1)
        done, shown = seen.shape[1] - start, seen.shape[1]
        ends = torch.tensor(options.eos_token_ids, device=seen.device, dtype=seen.dtype)
        ended = torch.isin(seen[:, start:], ends).any(1)


@contextmanager
def prompted(model: Any, length: int) -> Iterator[None]:
    """While this lasts, the model knows that so many tokens are the prompt and what follows is generated."""
    model.prompt_length = length
    try:
        yield
    finally:
        model.prompt_length = None


def _run(
    model: Any,
    given: Tensor,
    attention_mask: Tensor | None,
    options: GenerationOptions,
    tokenizer: Any,
    cache: DynamicCache | None,
    processors: list[LogitsProcessor],
) -> Any:
    is_tokens = not given.is_floating_point()
    _check_room(model, given.shape[1], attention_mask, options.max_new_tokens)
    _check_names(options.further)
    padded = attention_mask is not None and not bool(attention_mask.all())
    if options.freq_penalty:
        temperature = options.temperature if options.samples else 1.0
        processors = [
            *processors,
            _FrequencyPenalty(options.freq_penalty, temperature, attention_mask if is_tokens else None),
        ]
    inputs: dict[str, Any] = {"inputs" if is_tokens else "inputs_embeds": given}
    inputs |= options.inputs
    if cache is None and options.use_past_kv_cache:
        cache = DynamicCache()
    if cache is not None:
        inputs["past_key_values"] = cache
    mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
    with tqdm(total=options.max_new_tokens, disable=not options.verbose, leave=False) as bar:
        return driver_of(model, padded).generate(
            **inputs,
            attention_mask=attention_mask if padded else mask,
            generation_config=GenerationConfig(**options.settings()),
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList(
                [*options.stopping_criteria, *([_Progress(bar)] if options.verbose else [])]
            ),
            tokenizer=tokenizer,
        )


def _check_names(settings: dict[str, Any]) -> None:
    # NOTE: GenerationConfig takes any name and ignores what it does not know.
    known = vars(GenerationConfig())
    unknown = [name for name in settings if name not in known]
    if unknown:
        near = " ".join(nearest(name, known, count=3).strip() for name in unknown)
        raise ConfigurationError(f"generate has no setting {', '.join(map(repr, unknown))}. {near}".strip())


def _check_room(model: Any, length: int, mask: Tensor | None, new: int) -> None:
    if not model.cfg.learns_positions():
        return
    longest = length if mask is None else int(mask.sum(1).max())
    # The last new token is never run, so its position is not needed.
    if longest + new - 1 > model.cfg.n_ctx:
        room = max(model.cfg.n_ctx - longest + 1, 0)
        raise ValueError(
            f"{longest} tokens and max_new_tokens={new} exceed this model's n_ctx={model.cfg.n_ctx} learned positions. "
            f"At most {room} new tokens fit: shorten the input or ask for fewer."
        )
