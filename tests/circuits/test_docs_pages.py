"""The pages about paths, ablation, attribution and circuits: their code runs, and gives the figures they state."""

import re

import pytest

from docs_pages import DOCS, blocks

PAGES = ("paths", "ablation", "attribution-patching", "circuits")


@pytest.fixture(params=[*PAGES[:3], pytest.param("circuits", marks=pytest.mark.slow)])
def page(request, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    text = (DOCS / f"{request.param}.md").read_text(encoding="utf-8")
    block = "\n".join(code for language, code in blocks(f"{request.param}.md") if language == "python")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(block, request.param, "exec"), names)
    return request.param, text, names


def test_a_page_says_what_its_code_gives(page, tmp_path, capsys):
    name, text, found = page
    for image in re.findall(r"\]\(pictures/(.*?)\)", text):
        assert (tmp_path / image).exists(), f"{name} shows {image} and does not make it"
    CHECKS[name](found, text)


def check_paths(found, text):
    assert float(found["to_logits"][1, 0]) == pytest.approx(-2.5, abs=0.06)
    assert float(found["to_query"][0, 0]) == pytest.approx(-3.5, abs=0.06)
    assert found["to_logits"][0, 0] < found["to_logits"][1, 0]
    assert found["to_query"].flatten()[1:].abs().max() < 0.001


def check_ablation(found, text):
    for result in found["alone"].values():
        assert set(result.order()[:2]) == {"L0H0", "L1H0"}
    assert float(found["kept"].values[1].mean()) == pytest.approx(3.1, abs=0.06)


def check_attribution(found, text):
    rows = dict(re.findall(r"\| (resid_pre|attn_head_out_by_pos|attn_head_k_by_pos) \| \d+ \| (\.\d+)", text))
    for kind, value in found["plain"].items():
        assert value == pytest.approx(float(rows[kind]), abs=0.01)
    assert found["fixed"] > 0.99
    assert found["by_position"].shape == found["prompts"].tokens.shape


def check_circuits(found, text):
    stated = re.search(r"\| faithfulness \| (.*) \|\n", text)[1].split(" | ")
    measured = dict(zip(found["sizes"], found["faithful"].tolist(), strict=True))
    for size, value in zip((5, 10, 15, 20, 30, 40, 479), stated, strict=True):
        assert measured[size] == pytest.approx(float(value), abs=0.02)
    assert float(found["again"]) == pytest.approx(measured[20], abs=1e-4)
    assert found["thinned"].n_edges == 14
    assert {"L0H0", "L1H0"} <= set(found["thinned"].parts)
    check_positions(found, text)
    assert min(found["needed"][head] for head in ("L0H0", "L1H0")) > 3
    assert max(found["needed"], key=found["needed"].get) in ("input", "L0H0")


CHECKS = {
    "paths": check_paths,
    "ablation": check_ablation,
    "attribution-patching": check_attribution,
    "circuits": check_circuits,
}


def check_positions(found, text):
    sizes = [int(size) for size in re.search(r"\| edges of 7664 \| (.*) \|\n", text)[1].split(" | ")]
    assert found["found"].total_edges == 7664
    for name, steps in (("one gradient", 1), ("five", 5)):
        stated = re.search(rf"\| {name} \| (.*) \|\n", text)[1].split(" | ")
        measured = [recovered(found, row, steps, sizes) for row in range(8)]
        for size, value, several in zip(sizes, stated, zip(*measured, strict=True), strict=True):
            assert sum(several) / 8 == pytest.approx(float(value), abs=0.02), (name, size)


def recovered(found, row, steps, sizes):
    prompts, model = found["prompts"], found["model"]
    pair = prompts.tokens[row : row + 1], prompts.corrupted_tokens[row : row + 1]

    def difference(logits):
        return logits[0, -1, prompts.answer_tokens[row]] - logits[0, -1, prompts.wrong_tokens[row]]

    scores = found["attribution_patch"](model, *pair, difference, found["EdgeAttributionConfig"]("edge", steps))
    return [found["faithfulness"](model, *pair, difference, scores.top_edges(size)).recovered for size in sizes]
