"""The pages as a browser draws them, where there is one: cells, colours, tooltips, clicks and keys."""

import html
import json
import re
import shutil
import subprocess

import pytest
import torch

from transformer_lens.viz import (
    attention_heads,
    attention_text,
    coloured_tokens,
    eigenvalue_scatter,
    graph,
    head_grid,
    heat_map,
    line_plot,
    logit_lens_table,
    page,
)
from transformer_lens.viz.colours import colour_scale
from transformer_lens.viz.html import script_json

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: what the script draws is not checked")

TOKENS = ["</script><script>document.title='owned'</script>", " cat", "\n", " sat"]
VALUES = torch.tensor([[0.125, -2.5, float("nan"), 0.5], [1.0, 0.25, -0.75, 2.0]])
PATTERNS = torch.tensor([[[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0.1, 0.2, 0.3, 0.4]]] * 2)
PATTERNS[1, 3] = torch.tensor([0.7, 0.1, 0.1, 0.1])

PICTURES = {
    "heat_map": (heat_map(VALUES, column_labels=TOKENS, title="A", annotate=True), 8),
    "head_grid": (head_grid(VALUES, title="B"), 8),
    "head_grid_again": (head_grid(VALUES, title="B"), 8),
    "attention_heads": (attention_heads(PATTERNS, TOKENS), 32),
    "attention_text": (attention_text(PATTERNS, TOKENS), 4),
    "coloured_tokens": (coloured_tokens(TOKENS, VALUES[0]), 4),
    "logit_lens_table": (logit_lens_table([TOKENS, TOKENS], VALUES, TOKENS), 8),
    "line_plot": (line_plot({"one": VALUES[0], "two": VALUES[1]}, x_axis="layer"), 7),
    "eigenvalue_scatter": (eigenvalue_scatter(VALUES), 7),
    "graph": (graph(TOKENS, [0, 1, 1, 2], torch.tensor([[0, 1], [2, 3]]), VALUES[1, :2], edge_labels=["q", ""]), 2),
}

# Acts on each picture as a reader would and writes what there was to see into the page.
ACTS = """
const figures = [...document.querySelectorAll("figure.tlv")];
const seen = { title: document.title, cells: figures.map((figure) => Number(figure.dataset.cells)) };
const at = (name) => figures[NAMES.indexOf(name)];
const tip = (name) => at(name).querySelector(".tlv-tip").textContent;
function point(target, type, x, y) {
  const box = target.getBoundingClientRect();
  target.dispatchEvent(new PointerEvent(type, { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
}
// The middle of a cell, by the image's own place in its picture.
function pointAtCell(name, row, column, rows, columns) {
  const svg = at(name).querySelector(".tlv-scroll svg"), image = svg.querySelector("image");
  const [x, y, width, height] = ["x", "y", "width", "height"].map((key) => Number(image.getAttribute(key)));
  point(svg, "pointermove", x + ((column + 0.5) * width) / columns, y + ((row + 0.5) * height) / rows);
  return tip(name);
}
function press(target, key) {
  target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
}
const colours = (name) => [...at(name).querySelectorAll(".tlv-token")].map((token) => token.style.backgroundColor);

seen.heat_map = pointAtCell("heat_map", 0, 1, 2, 4);
seen.nan = pointAtCell("heat_map", 0, 2, 2, 4);
seen.head_grid = pointAtCell("head_grid", 1, 3, 2, 4);
press(at("head_grid").querySelector(".tlv-scroll svg"), "ArrowLeft");
seen.left = tip("head_grid");
const text = [...at("heat_map").querySelectorAll("svg text")].map((one) => one.textContent);
seen.text = text;
seen.large = at("attention_heads").querySelector(".tlv-which").textContent;
seen.head0 = pointAtCell("attention_heads", 3, 0, 4, 4);
point(at("attention_heads").querySelectorAll(".tlv-thumb")[1], "pointerenter", 5, 5);
seen.hovered = at("attention_heads").querySelector(".tlv-which").textContent;
at("attention_heads").querySelector(".tlv-thumbs").dispatchEvent(new PointerEvent("pointerleave"));
seen.back = at("attention_heads").querySelector(".tlv-which").textContent;
at("attention_heads").querySelectorAll(".tlv-thumb")[1].click();
at("attention_heads").querySelector(".tlv-thumbs").dispatchEvent(new PointerEvent("pointerleave"));
seen.kept = at("attention_heads").querySelector(".tlv-which").textContent;
seen.head1 = pointAtCell("attention_heads", 3, 0, 4, 4);
seen.last = colours("attention_text");
at("attention_text").querySelectorAll(".tlv-token")[0].click();
seen.first = colours("attention_text");
at("attention_text").querySelectorAll(".tlv-token")[3].click();
at("attention_text").querySelectorAll(".tlv-chip")[1].click();
point(at("attention_text").querySelectorAll(".tlv-token")[0], "pointerenter", 2, 2);
seen.weight = tip("attention_text");
seen.tokens = colours("coloured_tokens");
point(at("logit_lens_table").querySelectorAll("td")[5], "pointermove", 2, 2);
seen.table = tip("logit_lens_table");
press(at("line_plot").querySelector(".tlv-scroll svg"), "ArrowRight");
seen.line = tip("line_plot");
seen.gap = at("line_plot").querySelector(".tlv-scroll path").getAttribute("d").match(/M/g).length;
point(at("eigenvalue_scatter").querySelector("circle[r='3']"), "pointerenter", 1, 1);
seen.eigenvalue = tip("eigenvalue_scatter");

// A notebook sets its output as markup, which runs no script, and then puts a copy in each script's place.
for (const fragment of FRAGMENTS) {
  const output = document.createElement("div");
  output.innerHTML = fragment;
  document.body.appendChild(output);
  for (const inert of output.querySelectorAll("script")) {
    const script = document.createElement("script");
    for (const { name, value } of inert.attributes) script.setAttribute(name, value);
    script.textContent = inert.textContent;
    inert.replaceWith(script);
  }
}
seen.notebook = [...document.querySelectorAll("div > figure.tlv")].map((figure) => Number(figure.dataset.cells));
const grids = [...document.querySelectorAll("figure.tlv[data-kind='grid']")];
seen.drawings = grids.map((figure) => figure.querySelectorAll("image, .tlv-tip").length);
document.body.dataset.seen = JSON.stringify(seen);
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    path = page([made for made, _ in PICTURES.values()], folder / "page.html", title="Page")
    fragments = [PICTURES[name][0].html() for name in ("head_grid", "attention_heads", "head_grid")]
    names = f"const NAMES = {json.dumps(list(PICTURES))}; const FRAGMENTS = {script_json(fragments)};"
    acts = f"<script>{names}{ACTS}</script></body>"
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", acts), encoding="utf-8")
    # NOTE: Chromium's sandbox does not start as root, which containers run as; the page is our own.
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1200,900", "--enable-logging=stderr", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, "the script stopped: " + "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html.unescape(found[1]))


def test_every_picture_is_drawn_with_all_its_cells(seen):
    assert seen["cells"] == [cells for _, cells in PICTURES.values()]


def test_pictures_in_a_notebook_are_drawn_once_each(seen):
    assert seen["notebook"] == [8, 32, 8]
    assert seen["drawings"] == [2] * 5  # an image and a tooltip


def test_a_token_that_is_markup_stays_text(seen):
    assert seen["title"] == "Page"
    assert any(text.startswith("</script><script>docume") for text in seen["text"])


def test_pointing_at_a_cell_shows_its_labels_and_exact_value(seen):
    assert seen["heat_map"] == "row: 0\ncolumn: ·cat (1)\nvalue: -2.5"
    assert seen["nan"] == "row: 0\ncolumn: ↵ (2)\nvalue: nan"
    assert seen["head_grid"] == "L1H3\nvalue: 2"


def test_arrow_keys_move_between_cells(seen):
    assert seen["left"] == "L1H2\nvalue: -0.75"


def test_annotations_are_written(seen):
    assert {"0.12", "-2.50", "2.00"} <= set(seen["text"])


def test_pointing_at_a_head_enlarges_it_and_a_click_keeps_it(seen):
    assert [seen[key] for key in ("large", "hovered", "back", "kept")] == ["H0", "H1", "H0", "H1"]
    assert seen["head0"].endswith("attention weight: 0.1")
    assert seen["head1"].endswith("attention weight: 0.7")
    assert seen["head1"].startswith("query: ·sat (3)\nkey: </script>")


def test_a_click_on_a_token_makes_it_the_query(seen):
    white, full = "rgb(255, 255, 255)", "rgb(8, 48, 107)"
    assert seen["first"] == [full, white, white, white]
    assert len(set(seen["last"])) == 4
    assert white not in seen["last"]
    assert seen["weight"].startswith("H1, query 3: ·sat")
    assert seen["weight"].endswith("attention weight: 0.7")


def test_the_page_and_the_png_give_a_value_the_same_colour(seen):
    scale = colour_scale(VALUES[0].double().numpy(), "auto", None, on_paper=True)
    expected = [scale.colour(value) for value in VALUES[0].tolist()]
    found = ["#" + "".join(f"{int(channel):02x}" for channel in re.findall(r"\d+", rgb)) for rgb in seen["tokens"]]
    assert found == expected


def test_the_table_names_layer_position_and_top_token(seen):
    assert seen["table"] == "layer 1, position 1: ·cat\ntop token: ·cat\nprobability: 0.25"


def test_a_line_has_a_gap_at_nan_and_arrow_keys_read_it(seen):
    assert seen["gap"] == 2
    assert seen["line"] == "layer: 0\none: 0.125\ntwo: 1"


def test_an_eigenvalue_is_shown_with_both_parts(seen):
    assert seen["eigenvalue"] == "H0\n0.125 + 0i"
