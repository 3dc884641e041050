"""`transformer-lens lens`: what each layer would predict."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table

from transformer_lens import viz
from transformer_lens.cli.prompt import Prompt
from transformer_lens.cli.report import Report
from transformer_lens.lenses import LogitLens, logit_lens


def lens(prompt: Prompt, targets: Sequence[int], top: int) -> Report:
    """The logit lens of a prompt: the table at its last position, the whole grid on the page."""
    found = logit_lens(prompt.model, prompt.tokens, top_k=top, targets=list(targets) or None)
    names = [prompt.model.to_single_str_token(token) for token in targets]
    data = {**prompt.facts(), "targets": names, "layers": found.labels, "rows": found.table()}
    legend = "entropy and KL to the final prediction in nats; rank of the final token"
    shown: list[RenderableType] = [
        prompt.shown(),
        _table(found, names),
        legend + (", rank: probability of the others" if names else ""),
    ]
    return Report(f"Logit lens of {prompt.name}", data, shown, _page(found, prompt, names))


def _table(found: LogitLens, targets: Sequence[str]) -> Table:
    last = len(found.prompt[0]) - 1
    heads = ("stream", "likeliest next tokens", "entropy", "KL", "rank")
    table = Table(*(Column(head, no_wrap=True) for head in heads))
    for target in targets:
        table.add_column(escape(viz.visible_token(target)), no_wrap=True)
    for row in found.table():
        if row["position"] != last:
            continue
        said = [f"{viz.visible_token(t)} {p:.0%}" for t, p in zip(row["top"], row["probabilities"], strict=True)]
        asked = zip(row.get("target_ranks", ()), row.get("target_probabilities", ()), strict=True)
        table.add_row(
            row["layer"], escape("\n".join(said)), f"{row['entropy']:.2f}", f"{row['kl_to_final']:.2f}",
            str(row["rank_of_final"]), *(f"{rank}: {probability:.0%}" for rank, probability in asked),
        )  # fmt: skip
    return table


def _page(found: LogitLens, prompt: Prompt, targets: Sequence[str]) -> list[viz.Picture | str]:
    nats = {"entropy": found.entropy[:, 0, -1], "KL to the final prediction": found.kl_to_final[:, 0, -1]}
    pictures: list[viz.Picture | str] = [
        f"The final norm and the unembedding, applied to the stream before each layer, for `{prompt.text}`.",
        found.picture(title="The likeliest next token, and its probability"),
        found.picture(value="kl_to_final", title="How far each prediction is from the last one"),
        viz.line_plot(nats, x=found.labels, title="At the last position", x_axis="stream", y_axis="nats"),
    ]
    if found.target_probabilities is not None:
        at_end = dict(zip(targets, found.target_probabilities[:, 0, -1].unbind(-1), strict=True))
        title = "Probability of the tokens asked for, at the last position"
        pictures.append(viz.line_plot(at_end, x=found.labels, title=title, x_axis="stream", y_axis="probability"))
    return pictures
