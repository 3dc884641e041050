"""Whether a model knows an answer: its rank and probability, and what it would say instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from transformer_lens.text import TextError


@torch.no_grad()
def show_answer(
    prompt: str,
    answer: str | Sequence[str],
    model: Any,
    prepend_space_to_answer: bool = True,
    print_details: bool = True,
    prepend_bos: bool | None = None,
    top_k: int = 10,
) -> None:
    """Prints the rank and probability of each token of an answer after a prompt, and the likeliest tokens there.

    Args:
        prompt: the text before.
        answer: its continuation, or several to compare.
        model: either host, with a tokenizer.
        prepend_space_to_answer: put a space between prompt and answer where the answer does not begin with one.
        print_details: show the tokens, and the likeliest ones at each place of the answer; else one line per answer.
        prepend_bos: start with BOS; None: as the model does.
        top_k: so many of the likeliest tokens.

    Raises:
        TextError: an answer is empty.
        MissingTokenizerError: the model has no tokenizer.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> show_answer("The capital of France is", "Paris", model, print_details=False)
        ' Paris': rank 0, probability 98.82%
    """
    console = Console(highlight=False, soft_wrap=True)
    before = model.to_tokens(prompt, prepend_bos=prepend_bos)
    if print_details:
        console.print(f"Prompt tokens: {model.to_str_tokens(prompt, prepend_bos=prepend_bos)}", markup=False)
    for text in [answer] if isinstance(answer, str) else answer:
        spaced = f" {text}" if prepend_space_to_answer and not text.startswith(" ") else text
        tokens = model.to_tokens(spaced, prepend_bos=False).to(before.device)
        if tokens.shape[1] == 0 or not text:
            raise TextError("An answer is at least one token; one of these is empty.")
        after = model(torch.cat([before, tokens], 1)[:, :-1])[0, -tokens.shape[1] :].softmax(-1)
        for probabilities, token in zip(after, tokens[0].tolist(), strict=True):
            rank, probability = int((probabilities > probabilities[token]).sum()), float(probabilities[token])
            shown = repr(model.to_single_str_token(token))
            console.print(f"{shown}: rank {rank}, probability {probability:.2%}", markup=False)
            if print_details:
                console.print(_likeliest(model, probabilities, top_k))


def _likeliest(model: Any, probabilities: torch.Tensor, top_k: int) -> Table:
    table = Table("rank", "token", "probability")
    best = probabilities.topk(min(top_k, len(probabilities)))
    for rank, (probability, token) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        table.add_row(str(rank), escape(repr(model.to_single_str_token(token))), f"{probability:.2%}")
    return table
