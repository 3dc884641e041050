"""The README's Python runs, and pages that are written from data are up to date."""

import re
import runpy
from pathlib import Path

import pytest

from docs_pages import blocks, same

ROOT = Path(__file__).parents[1]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


def test_readme_python_runs(capsys):
    for block in python_blocks(ROOT / "README.md"):
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == " Paris"
    assert printed[1] == "torch.Size([1, 4, 6, 6])"
    assert float(re.search(r"[\d.]+", printed[2])[0]) > 0.1
    assert printed[3].startswith("tensor([[")


def test_hook_points_page_is_current():
    written = runpy.run_path(str(ROOT / "docs" / "hook_points.py"))
    assert (ROOT / "docs" / "hook-points.md").read_text() == written["page"](), "run: python docs/hook_points.py"


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_bridge_page_runs(capsys):
    scope = {}
    for block in python_blocks(ROOT / "docs" / "bridge.md"):
        exec(compile(block, "bridge.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert printed.splitlines()[:2] == [" Paris", "torch.Size([1, 6, 4, 32]) torch.Size([1, 4, 6, 6])"]
    assert "torch.Size([1, 3, 50])" in printed
    assert "blocks.0.mixer.in_proj.hook_out" in printed
    assert "holds      pattern v = z" in printed


@pytest.mark.parametrize("page", ["evals.md", "training.md"])
def test_pages_print_what_they_say(page, capsys):
    scope, printed, compared = {}, "", 0
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page, "exec"), scope)
            printed = capsys.readouterr().out
        if language == "text":
            assert same(printed, text), printed
            compared += 1
    assert compared


def test_other_words_and_numbers_are_seen():
    assert same("loss  1.00\n", "loss 1.01")
    assert not same("loss 1.00", "loss 1.10")
    assert not same("loss 1.00", "cost 1.00")
    assert not same("loss 1.00", "loss 1.00 2")
