"""How alike the attention of each head is to a pattern: previous token, duplicate token, induction, or one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.cache.activation_cache import ActivationCache

HeadName = Literal["previous_token_head", "duplicate_token_head", "induction_head"]
ErrorMeasure = Literal["abs", "mul"]
LayerHeadTuple = tuple[int, int]
LayerToHead = dict[int, list[int]]
Pattern = Float[Tensor, "query key"]


@torch.no_grad()
def detect_head(
    model: Any,
    seq: str | list[str],
    detection_pattern: Pattern | HeadName,
    heads: Sequence[LayerHeadTuple] | LayerToHead | None = None,
    cache: ActivationCache | None = None,
    *,
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
    error_measure: ErrorMeasure = "mul",
) -> Float[Tensor, "layer head"]:
    """How alike each head's attention on a text is to a pattern, up to 1; -1 for heads that were not asked for.

    "mul" is the share of a head's attention that falls on the pattern (the pattern's values weigh it), from 0. "abs" is
    1 less the absolute difference of attention and pattern, summed over keys, in the mean over queries; from -1.

    Args:
        model: the model, on either host.
        seq: a text, or several, whose scores are averaged.
        detection_pattern: a name, or a pattern of one's own [query, key] for this text: zero above the diagonal,
            between 0 and 1.
        heads: (layer, head) pairs, or heads by layer; None: all.
        cache: the run of this text, with every hook_pattern; None: the model runs.
        exclude_bos: leave out what is attended to at the first position.
        exclude_current_token: leave out what each position attends to at itself.
        error_measure: "mul" or "abs".

    Raises:
        ValueError: an unknown name or measure, a pattern of another shape than the attention, a head that does not
            exist, more tokens than n_ctx, or a cache for several texts.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> scores = detect_head(model, "Monday, Tuesday, Wednesday,", "previous_token_head", exclude_bos=True)
        >>> divmod(int(scores.argmax()), 4)
        (0, 0)
    """
    chosen = _chosen(heads, model.cfg.n_layers, model.cfg.n_heads)
    measured: Any = {
        "exclude_bos": exclude_bos, "exclude_current_token": exclude_current_token, "error_measure": error_measure,
    }  # fmt: skip
    if not isinstance(seq, str):
        if cache is not None:
            raise ValueError("A cache is of one run; with several texts let the model run them.")
        each = [detect_head(model, text, detection_pattern, heads, **measured) for text in seq]
        return torch.stack(each).mean(0)
    tokens = model.to_tokens(seq, truncate=False)
    length = tokens.shape[1]
    if not 1 < length <= model.cfg.n_ctx:
        raise ValueError(f"The text is {length} tokens; it must be from 2 to n_ctx={model.cfg.n_ctx}.")
    wanted = _pattern(detection_pattern, tokens)
    if cache is None:
        layers = sorted({layer for layer, _ in chosen})
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
        _, cache = model.run_with_cache(tokens, return_type=None, names_filter=names)
    scores = torch.full((model.cfg.n_layers, model.cfg.n_heads), -1.0)
    for layer, head in chosen:
        attention = cache["pattern", layer]
        pattern = attention[(0, head) if cache.has_batch_dim else head]
        scores[layer, head] = compute_head_attention_similarity_score(pattern, wanted, **measured)
    return scores


def get_previous_token_head_detection_pattern(tokens: Int[Tensor, "one pos"]) -> Pattern:
    """1 where the key is the token before the query.

    Example:
        >>> get_previous_token_head_detection_pattern(torch.tensor([[7, 8, 9]]))
        tensor([[0., 0., 0.],
                [1., 0., 0.],
                [0., 1., 0.]])
    """
    length = tokens.shape[-1]
    return torch.diag(torch.ones(length - 1), -1)


def get_duplicate_token_head_detection_pattern(tokens: Int[Tensor, "one pos"]) -> Pattern:
    """1 where the key is an earlier occurrence of the query's token.

    Example:
        >>> get_duplicate_token_head_detection_pattern(torch.tensor([[7, 8, 7]]))
        tensor([[0., 0., 0.],
                [0., 0., 0.],
                [1., 0., 0.]])
    """
    row = tokens.reshape(-1).cpu()
    return (row[:, None] == row[None, :]).float().tril(-1)


def get_induction_head_detection_pattern(tokens: Int[Tensor, "one pos"]) -> Pattern:
    """1 where the key is the token after an earlier occurrence of the query's token.

    Example:
        >>> get_induction_head_detection_pattern(torch.tensor([[7, 8, 7]]))
        tensor([[0., 0., 0.],
                [0., 0., 0.],
                [0., 1., 0.]])
    """
    duplicates = get_duplicate_token_head_detection_pattern(tokens)
    return torch.roll(duplicates, 1, dims=1).tril(-1)


PATTERNS = {
    "previous_token_head": get_previous_token_head_detection_pattern,
    "duplicate_token_head": get_duplicate_token_head_detection_pattern,
    "induction_head": get_induction_head_detection_pattern,
}


def get_supported_heads() -> None:
    """None; prints the names of the patterns that `detect_head` knows.

    Example:
        >>> get_supported_heads()
        Supported heads: ('previous_token_head', 'duplicate_token_head', 'induction_head')
    """
    print(f"Supported heads: {tuple(PATTERNS)}")  # noqa: T201 - it is what the function is for


def compute_head_attention_similarity_score(
    attention_pattern: Pattern,
    detection_pattern: Pattern,
    *,
    exclude_bos: bool,
    exclude_current_token: bool,
    error_measure: ErrorMeasure,
) -> float:
    """How alike one head's attention is to a pattern. See `detect_head`.

    Raises:
        ValueError: the attention is not square, or an unknown measure.

    Example:
        >>> attention = torch.tensor([[1.0, 0.0], [0.75, 0.25]])
        >>> wanted = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> options = dict(exclude_bos=False, exclude_current_token=False)
        >>> compute_head_attention_similarity_score(attention, wanted, error_measure="mul", **options)
        0.375
        >>> compute_head_attention_similarity_score(attention, wanted, error_measure="abs", **options)
        0.25
    """
    if attention_pattern.ndim != 2 or attention_pattern.shape[0] != attention_pattern.shape[1]:
        raise ValueError(f"The attention of one head is [query, key], square; got {tuple(attention_pattern.shape)}.")
    if error_measure not in get_args(ErrorMeasure):
        raise ValueError(f'error_measure is "mul" or "abs"; got {error_measure!r}.')
    attention = attention_pattern.detach().float().cpu().clone()
    wanted = detection_pattern.to(attention).clone()
    for matrix in (attention, wanted):
        if exclude_bos:
            matrix[:, 0] = 0
        if exclude_current_token:
            matrix.fill_diagonal_(0)
    if error_measure == "mul":
        whole = attention.sum()
        return ((attention * wanted).sum() / whole).item() if whole else 0.0
    return 1 - (attention - wanted).abs().sum(1).mean().item()


def _pattern(given: Pattern | HeadName, tokens: Int[Tensor, "one pos"]) -> Pattern:
    if isinstance(given, str):
        if given not in PATTERNS:
            raise ValueError(f"detection_pattern is a tensor or one of {', '.join(PATTERNS)}; got {given!r}.")
        return PATTERNS[given](tokens)
    length = tokens.shape[1]
    if given.shape != (length, length):
        raise ValueError(
            f"detection_pattern has shape {tuple(given.shape)}, but the text is {length} tokens: give [{length}, "
            f"{length}]."
        )
    if (given.triu(1) != 0).any() or (given < 0).any() or (given > 1).any():
        raise ValueError("detection_pattern is zero above the diagonal (a head sees no later token), and from 0 to 1.")
    return given


def _chosen(heads: Sequence[LayerHeadTuple] | LayerToHead | None, n_layers: int, n_heads: int) -> list[LayerHeadTuple]:
    if heads is None:
        return [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    pairs = [(layer, head) for layer in heads for head in heads[layer]] if isinstance(heads, dict) else list(heads)
    for layer, head in pairs:
        if not (0 <= layer < n_layers and 0 <= head < n_heads):
            raise ValueError(f"heads: the model has layers 0 to {n_layers - 1} and heads 0 to {n_heads - 1}; got "
                             f"({layer}, {head}).")  # fmt: skip
    return pairs
