"""The pages about lenses, detectors and probes run, draw the pictures that they show, and state what comes out."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a page's Python in an empty folder; its names, after a check of the pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()

    def run_page(name):
        text = (DOCS / name).read_text(encoding="utf-8")
        names = {}
        exec(compile("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S)), name, "exec"), names)
        drawn = {f"pictures/{path.name}" for path in (tmp_path / "pictures").iterdir()}
        assert drawn == set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", text))
        return names, text

    return run_page


@pytest.mark.slow
def test_lenses_page(run):
    names, text = run("lenses.md")
    for lens, values in names["kl"].items():
        stated = [float(cell) for cell in re.search(rf"\| {lens} \|(.*)\|", text)[1].split("|")]
        assert values[:4].tolist() == pytest.approx(stated, rel=0.05, abs=0.02)
    assert names["said"] == {"steered": " Rome", "swapped": " Rome", "ablated": " the"}
    assert [names["likely"][layer][0][0] for layer in (1, 2, 3)] == [" Paris"] * 3
    assert names["words"][:2] == [" Paris", " Eiffel"]
    assert names["scope"].table()[-1]["text"].startswith(" Paris")


def test_detectors_page(run):
    names, _ = run("detectors.md")
    found = names["found"]
    assert found.name_mover_head == (1, 0)
    assert found.preference == pytest.approx(0.74, abs=0.01)
    assert found.s_inhibition[0, 0].item() == pytest.approx(0.68, abs=0.01)


def test_probing_page(run):
    names, _ = run("probing.md")
    assert names["unseen"].accuracy.tolist() == pytest.approx([1.0] * 4, abs=0.02)
    assert names["study"].control.tolist() == pytest.approx([1.0, 0.73, 0.63, 0.52], abs=0.05)
    assert [names["accuracy"][k] for k in (1, 4, 8)] == pytest.approx([0.73, 0.95, 1.0], abs=0.05)
