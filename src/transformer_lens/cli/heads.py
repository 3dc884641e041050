"""`transformer-lens heads`: which heads do a known job."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from rich.table import Column, Table
from torch import Tensor

from transformer_lens import viz
from transformer_lens.cli.prompt import Prompt
from transformer_lens.cli.report import Report
from transformer_lens.lenses import copying_scores, detect_head, head_scores
from transformer_lens.lenses.head_detector import HeadName

Scores = dict[str, Float[Tensor, "layer head"]]
KINDS = {
    "previous_token": "attention to the token before",
    "duplicate_token": "attention to an earlier copy of the same token",
    "induction": "attention to the token after an earlier copy",
    "copying": "positive eigenvalues of the OV circuit, less negative ones",
}

PATTERNS: dict[str, HeadName] = {
    "previous_token": "previous_token_head",
    "duplicate_token": "duplicate_token_head",
    "induction": "induction_head",
}


def heads_anywhere(name: str, model: Any, top: int) -> Report:
    """Scores of all heads over random tokens that are repeated once."""
    found = head_scores(model, length=min(30, (model.cfg.n_ctx - 1) // 2))
    scores = {
        "previous_token": found.previous_token,
        "duplicate_token": found.duplicate_token,
        "induction": found.induction,
        "copying": copying_scores(model),
    }
    text = "Mean attention over random tokens that are repeated once; copying is read from weights alone."
    return _report(name, scores, text, {"model": name, "prompt": None}, top)


@torch.no_grad()
def heads_on(prompt: Prompt, top: int) -> Report:
    """How much of each head's attention on a prompt falls on each pattern, that to BOS left out."""
    scores = {
        kind: detect_head(prompt.model, prompt.text, pattern, exclude_bos=True) for kind, pattern in PATTERNS.items()
    }
    text = (
        f"The share of each head's attention on `{prompt.text}` that falls on a pattern; attention to BOS is left out."
    )
    return _report(prompt.name, scores, text, prompt.facts(), top)


def _report(name: str, scores: Scores, text: str, data: dict[str, Any], top: int) -> Report:
    best = {kind: _best(values, top) for kind, values in scores.items()}
    table = Table(*(Column(kind, no_wrap=True) for kind in scores))
    for heads in zip(*best.values(), strict=True):
        table.add_row(*(f"{head} {score:.2f}" for head, score in heads))
    meanings = [f"{kind}: {KINDS[kind]}" for kind in scores]
    pictures = [
        viz.head_grid(
            values, title=f"{kind.replace('_', ' ').capitalize()}: {KINDS[kind]}", value_name="score", annotate=True,
            limits=(-1.0 if kind == "copying" else 0.0, 1.0),
        )
        for kind, values in scores.items()
    ]  # fmt: skip
    numbers = {kind: values.tolist() for kind, values in scores.items()}
    names = {kind: [head for head, _ in heads] for kind, heads in best.items()}
    data = {**data, "scores": numbers, "best": names}
    return Report(f"Heads of {name}", data, [table, *meanings], [text, *pictures])


def _best(values: Float[Tensor, "layer head"], top: int) -> list[tuple[str, float]]:
    here = values.nan_to_num(-torch.inf).flatten()  # nan: the layer has no such head
    found = here.topk(min(top, int(here.isfinite().sum())))
    places = [divmod(place, values.shape[1]) for place in found.indices.tolist()]
    return [(f"L{layer}H{head}", score) for (layer, head), score in zip(places, found.values.tolist(), strict=True)]
