"""`transformer-lens attribute`: which parts of a model write an answer."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from rich.markup import escape
from rich.table import Table

from transformer_lens import viz
from transformer_lens.cli.prompt import Prompt
from transformer_lens.cli.report import Report
from transformer_lens.lenses import direct_logit_attribution, source_attribution


class By(StrEnum):
    """What an answer is split by."""

    COMPONENT = "component"
    HEAD = "head"
    NEURON = "neuron"
    SOURCE = "source"


def attribute(prompt: Prompt, answer: int, wrong: int | None, *, by: By, top: int) -> Report:
    """What each part adds at the last position to logit(answer), or to logit(answer) - logit(wrong)."""
    names = [viz.visible_token(prompt.model.to_single_str_token(t)) for t in (answer, wrong) if t is not None]
    goal = " - ".join(f"logit({name})" for name in names)
    data = {**prompt.facts(), "answer": names[0], "wrong": names[1] if wrong is not None else None, "by": by.value}
    if by is By.SOURCE:
        found, rows, picture = _sources(prompt, answer, wrong, top)
    else:
        found, rows, picture = _parts(prompt, answer, wrong, by, top)
    table = Table(*rows[0], title=escape(f"What adds to {goal}"), title_justify="left")
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    text = f"What each {by.value} adds directly to `{goal}` at the end of `{prompt.text}`, in logits."
    return Report(f"Attribution in {prompt.name}", {**data, **found}, [prompt.shown(), table], [text, picture])


def _parts(
    prompt: Prompt, answer: int, wrong: int | None, by: By, top: int
) -> tuple[dict[str, Any], list[tuple[str, ...]], viz.Picture]:
    found = direct_logit_attribution(prompt.model, prompt.tokens, answer, wrong, unit=by.value, top_k=max(top, 20))
    rest, constant = found.rest[0].item(), found.constant[0].item()
    rows = [(by.value, "logits"), *((label, f"{value:+.3f}") for label, value in found.top(top))]
    listed = sum(value for _, value in found.top(top))
    others = found.attribution.sum().item() + rest - listed
    rows += [("all others", f"{others:+.3f}"), ("biases of the unembedding", f"{constant:+.3f}")]
    rows.append(("sum", f"{listed + others + constant:+.3f}"))
    parts = [{"label": row["label"], "logits": row["mean"]} for row in found.table()]
    data = {"parts": parts, "rest": rest, "constant": constant}
    return data, rows, found.picture(title=f"Direct logit attribution by {by.value}")


def _sources(
    prompt: Prompt, answer: int, wrong: int | None, top: int
) -> tuple[dict[str, Any], list[tuple[str, ...]], viz.Picture]:
    found = source_attribution(prompt.model, prompt.tokens, answer, wrong)
    rows = [("head", "position", "token", "logits")]
    for head, source, value in found.top(top):
        rows.append((head, str(source), viz.visible_token(prompt.words[source]), f"{value:+.3f}"))
    data = {
        "heads": found.labels,
        "attribution": found.attribution[:, 0].tolist(),
        "value_bias": found.value_bias[:, 0].tolist(),
        "output_bias": found.output_bias[:, 0].tolist(),
    }
    return data, rows, found.picture(title="Direct logit attribution by head and source")
