"""The tutorials and the pages on editing and steering run, print what they say, and find their circuits."""

import re
import runpy
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")
DOCS = Path(__file__).parents[2] / "docs"
RUN = runpy.run_path(str(DOCS / "tutorials" / "run.py"))
NUMBER = re.compile(r"-?\d+\.\d+")


def shown_on(page):
    """What the page says its code prints."""
    return "".join(re.findall(r"```text\n(.*?)```", (DOCS / page).read_text(), flags=re.S))


def assert_same_output(printed, shown):
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
    for one, other in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        assert float(one) == pytest.approx(float(other), abs=0.11, rel=0.02)


@pytest.mark.parametrize("page", RUN["PAGES"])
def test_runs_and_prints_and_draws_what_it_shows(page, tmp_path, capsys):
    names = RUN["run"](page, tmp_path)
    assert_same_output(capsys.readouterr().out, shown_on(f"tutorials/{page}.md"))
    pictures = re.findall(r"\]\(pictures/(.*?)\)", (DOCS / "tutorials" / f"{page}.md").read_text())
    assert sorted(pictures) == sorted(path.name for path in tmp_path.iterdir())
    FOUND[page](names)


def _fact_moves_in_layer_1(names):
    stream, last = names["stream"], names["last"]
    assert stream[0, 2] > 5  # the landmark, before layer 0
    assert stream[1, last] < -8 < 0 < stream[2, last]  # the last word, before and after layer 1
    assert names["attention"][:, last].argmax() == 1


def _names_are_moved_by_two_heads(names):
    assert names["decides"] == (0, 0)
    assert names["mover"] == (1, 0)
    assert {tuple(divmod(int(i), 4)) for i in names["direct"].flatten().topk(2).indices} == {(0, 0), (1, 0)}
    queries, keys, values, _ = names["paths"]
    whole = names["mean_metric"](names["logits"])
    assert queries < whole - 2
    torch.testing.assert_close(torch.stack([keys, values]), whole.expand(2), rtol=0, atol=0.1)


def _induction_needs_two_layers(names):
    scores, curves, second = names["scores"], names["curves"], names["second"]
    assert (scores.induction[1] > 0.5).all()
    assert scores.previous_token.argmax() == 0
    assert curves["as it is"][second].mean() < 0.1
    assert curves["without L0H0"][second].mean() > 5
    assert curves["without layer 2's heads"][second].mean() < 0.5


FOUND = {
    "causal-tracing": _fact_moves_in_layer_1,
    "ioi": _names_are_moved_by_two_heads,
    "induction": _induction_needs_two_layers,
}


@pytest.mark.parametrize("page", ["editing.md", "steering.md"])
def test_page_runs_and_prints_what_it_shows(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.S)
    exec(compile("\n".join(blocks), page, "exec"), {})
    assert_same_output(capsys.readouterr().out, shown_on(page))
