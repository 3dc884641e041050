"""Each function's data, errors and PNG."""

import dataclasses
import json
import warnings

import numpy as np
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
)
from transformer_lens.viz.colours import BLUES

TOKENS = ["<script>alert(1)</script>", " the", "\n", "$x^{$", "日"]
PATTERNS = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0)).tril()


def every_picture():
    """One of each kind, with the awkward values and labels that turn up."""
    effect = torch.linspace(-2, 3, 10).reshape(2, 5)
    effect[0, 1], effect[1, 1], effect[1, 2] = float("nan"), float("inf"), -float("inf")
    eigenvalues = torch.complex(torch.randn(5, 4), torch.randn(5, 4))
    return {
        "heat_map": heat_map(effect, column_labels=TOKENS, title="A $map^{$", annotate=True),
        "head_grid": head_grid(effect),
        "attention_heads": attention_heads(PATTERNS, TOKENS, title="<b>Layer</b>"),
        "attention_text": attention_text(PATTERNS, TOKENS, head=1, query=-2),
        "coloured_tokens": coloured_tokens(TOKENS, effect[0]),
        "logit_lens_table": logit_lens_table([TOKENS, TOKENS[::-1]], effect, TOKENS),
        "line_plot": line_plot({"_a $": effect[0], "b": effect[1]}, x=TOKENS, title="Lines"),
        "eigenvalue_scatter": eigenvalue_scatter(eigenvalues),
        "graph": graph(
            TOKENS,
            [0, 1, 1, 2, 4],
            torch.tensor([[0, 1], [1, 3], [0, 4]]),
            effect[0, 2:],
            edge_labels=["$q^{$", "日", ""],
        ),
    }


def pixels(picture, path):
    image = pytest.importorskip("matplotlib.image")
    picture.save(path)
    return image.imread(path)


@pytest.mark.parametrize("name", every_picture())
def test_png_has_the_size_and_content_it_should(name, tmp_path):
    picture = every_picture()[name]
    decoded = pixels(picture, tmp_path / "picture.png")
    assert decoded.shape[:2] == (int(picture.size[1] * 150), int(picture.size[0] * 150))
    assert len(np.unique(decoded[..., :3].reshape(-1, 3), axis=0)) > 20
    assert (decoded[..., :3].min(axis=-1) < 0.95).mean() > 0.005


@pytest.mark.parametrize("name", every_picture())
def test_data_survives_json_and_the_picture_is_frozen(name):
    picture = every_picture()[name]
    assert json.loads(json.dumps(picture.data, allow_nan=False)).keys() == picture.data.keys()
    with pytest.raises(dataclasses.FrozenInstanceError):
        picture.title = "other"


def test_heat_map_png_shows_each_value_in_its_cell(tmp_path):
    decoded = pixels(heat_map(np.array([[-1.0, 1.0], [np.nan, 0.0]])), tmp_path / "map.png")
    pixel_colours = np.round(decoded[..., :3] * 255).astype(int)
    for colour in ((5, 48, 97), (103, 0, 31), (201, 201, 201)):
        assert (pixel_colours == colour).all(axis=-1).mean() > 0.05, colour


def test_heat_map_data_in_reading_order_with_visible_labels():
    picture = heat_map(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]]), column_labels=[" a", "b", "\n"])
    assert picture.data["values"] == [1, 2, 3, 4, 5, None]
    assert picture.data["rows"] == ["0", "1"]
    assert picture.data["columns"] == ["·a", "b", "↵"]


def test_heat_map_label_errors():
    with pytest.raises(ValueError, match="row_labels has 1 entries, but there are 2 rows of values"):
        heat_map(np.ones((2, 3)), row_labels=["a"])
    with pytest.raises(ValueError, match="column_labels has 2 entries, but there are 3 columns of values"):
        heat_map(np.ones((2, 3)), column_labels=["a", "b"])


def test_annotations_reach_the_page_only_when_asked():
    assert heat_map(np.array([[0.5, -0.25]]), annotate=True).data["notes"] == ["0.50", "-0.25"]
    assert heat_map(np.array([[0.5, -0.25]])).data["notes"] is None


def test_head_grid_names_layers_and_heads():
    picture = head_grid(torch.zeros(2, 3))
    assert picture.data["rows"] == ["L0", "L1"]
    assert picture.data["columns"] == ["H0", "H1", "H2"]
    assert picture.data["joined"] is True


def test_attention_heads_axes_and_scale():
    patterns = torch.arange(12.0).reshape(2, 2, 3) / 11
    picture = attention_heads(patterns, ["a", "b"], key_tokens=["x", "y", "z"], head_labels=["L1H0", "L4H1"])
    assert picture.data["queries"] == ["a", "b"]
    assert picture.data["keys"] == ["x", "y", "z"]
    assert picture.data["heads"] == ["L1H0", "L4H1"]
    assert picture.data["values"] == pytest.approx([index / 11 for index in range(12)], abs=1e-6)
    assert picture.data["scale"]["stops"] == BLUES
    assert (picture.data["scale"]["low"], picture.data["scale"]["high"]) == (0.0, 1.0)


def test_attention_label_errors():
    with pytest.raises(ValueError, match="tokens has 4 entries, but there are 5 queries in patterns"):
        attention_heads(PATTERNS, TOKENS[:4])
    with pytest.raises(ValueError, match="key_tokens has 4 entries, but there are 5 keys in patterns"):
        attention_heads(PATTERNS, TOKENS, key_tokens=TOKENS[:4])
    with pytest.raises(ValueError, match="tokens has 5 entries, but there are 6 keys in patterns"):
        attention_text(torch.ones(1, 5, 6), TOKENS)
    with pytest.raises(ValueError, match="head_labels has 1 entries, but there are 3 heads in patterns"):
        attention_text(PATTERNS, TOKENS, head_labels=["H0"])


def test_attention_text_choice():
    picture = attention_text(PATTERNS, TOKENS, head=-1, query=-2)
    assert (picture.data["head"], picture.data["query"]) == (2, 3)
    with pytest.raises(IndexError, match="head 3 is out of range: patterns has 3, so choose 0 to 2"):
        attention_text(PATTERNS, TOKENS, head=3)
    with pytest.raises(IndexError, match="query -6 is out of range: patterns has 5"):
        attention_text(PATTERNS, TOKENS, query=-6)


def test_coloured_tokens_label_error():
    with pytest.raises(ValueError, match="tokens has 5 entries, but there are 4 values"):
        coloured_tokens(TOKENS, torch.ones(4))


def test_logit_lens_table_errors():
    with pytest.raises(ValueError, match="top_tokens has 1 layers, but there are 2 layers in values"):
        logit_lens_table([["a"]], torch.ones(2, 1), ["a"])
    with pytest.raises(ValueError, match=r"top_tokens\[1\] has 1 entries, but there are 2 positions in values"):
        logit_lens_table([["a", "b"], ["a"]], torch.ones(2, 2), ["a", "b"])
    with pytest.raises(ValueError, match="tokens has 1 entries, but there are 2 positions in values"):
        logit_lens_table([["a", "b"]], torch.ones(1, 2), ["a"])
    with pytest.raises(ValueError, match="layer_labels has 2 entries, but there are 1 layers in values"):
        logit_lens_table([["a", "b"]], torch.ones(1, 2), ["a", "b"], layer_labels=["0", "1"])


def test_the_png_of_a_table_has_each_token_in_its_cell():
    pytest.importorskip("matplotlib")
    figure = logit_lens_table([[" a", "b"], ["c", "$d^{$"]], torch.ones(2, 2), ["x", "y"]).figure()
    written = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert written == {(0, 0): "·a", (1, 0): "b", (0, 1): "c", (1, 1): "$d^{$"}


def test_line_plot_errors():
    with pytest.raises(ValueError, match="series is empty"):
        line_plot({})
    with pytest.raises(ValueError, match=r"series\['b'\] has 3 values, but series\['a'\] has 2"):
        line_plot({"a": torch.ones(2), "b": torch.ones(3)})
    with pytest.raises(ValueError, match=r"x has 3 values, but series\['a'\] has 2"):
        line_plot({"a": torch.ones(2)}, x=torch.ones(3))
    with pytest.raises(ValueError, match=r"x has 1 entries, but there are 2 values in series\['a'\]"):
        line_plot({"a": torch.ones(2)}, x=["L0"])
    with pytest.raises(ValueError, match="x has a value that is not finite"):
        line_plot({"a": torch.ones(2)}, x=np.array([0.0, np.nan]))


def test_lines_of_one_colour_differ_in_their_dashes():
    picture = line_plot({f"line {i}": torch.ones(2) for i in range(14)})
    styles = {(line["colour"], line["dashes"]) for line in picture.data["series"]}
    assert len(styles) == 14


def test_eigenvalue_scores():
    values = torch.tensor([[1.0, 2.0], [-1.0, -3.0], [1.0, -1.0], [0.0, 0.0]])
    scores = [head["score"] for head in eigenvalue_scatter(values).data["heads"]]
    assert scores == [1, -1, 0, 0]
    complex_values = np.array([[3 + 4j, 3 - 4j]])
    assert eigenvalue_scatter(complex_values).data["heads"][0]["score"] == 0.6


def test_eigenvalues_without_a_finite_one_are_refused():
    with pytest.raises(ValueError, match="values has 2 eigenvalues, and none of them is finite"):
        eigenvalue_scatter(np.full((1, 2), np.nan))
    with pytest.raises(ValueError, match="head_labels has 2 entries, but there are 1 heads in values"):
        eigenvalue_scatter(np.ones((1, 2)), head_labels=["a", "b"])


def test_a_layer_of_twelve_heads_on_64_tokens_stays_small():
    scores = torch.randn(12, 64, 64, generator=torch.Generator().manual_seed(0))
    patterns = scores.masked_fill(torch.ones(64, 64).triu(1).bool(), -torch.inf).softmax(dim=-1)
    size = len(attention_heads(patterns, [f" token{i}" for i in range(64)]).html().encode())
    assert size < 500_000


@pytest.mark.parametrize(
    "picture", [heat_map(np.ones((200, 300))), head_grid(torch.ones(1, 1)), heat_map(np.ones((1, 90)))]
)
def test_extreme_shapes_warn_of_nothing(picture, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(picture, tmp_path / "map.png").size


def names_on(figure):
    """The names of axes, and the titles, that are drawn."""
    for axes in figure.axes:
        if axes.axison:
            yield from (axes.xaxis.label, axes.yaxis.label, axes.title)
    yield from figure.texts


def inside(figure):
    pytest.importorskip("matplotlib")
    figure.canvas.draw()
    boxes = [name.get_window_extent() for name in names_on(figure) if name.get_text()]
    return all(
        box.y0 >= -1 and box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1 for box in boxes
    )


@pytest.mark.parametrize("name", every_picture())
def test_no_name_in_a_png_is_cut_off(name):
    assert inside(every_picture()[name].figure())


@pytest.mark.parametrize("heads", [1, 4, 7])
def test_long_labels_of_heads_have_room(heads):
    tokens = ["<|endoftext|>", *TOKENS[1:]]
    assert inside(attention_heads(torch.eye(len(tokens)).expand(heads, -1, -1), tokens, title="Layer 1").figure())
