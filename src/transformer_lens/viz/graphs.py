"""Pictures of graphs: nodes in layers from the bottom up, and edges as wide as what they carry."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from transformer_lens.viz.arrays import Json, as_array, as_json_numbers, checked_labels
from transformer_lens.viz.colours import SERIES
from transformer_lens.viz.figure import LABEL, Figure, drawable, matplotlib_parts
from transformer_lens.viz.picture import Picture

POSITIVE, NEGATIVE = SERIES[0], SERIES[1]
NODE_WIDTH, NODE_HEIGHT = 0.8, 0.34
LABELLED_EDGES = 60
"""With more edges than this the PNG leaves their labels out; the HTML shows them on hover."""


@dataclass(frozen=True)
class _Layout:
    """Where nodes are, in units of a column and a row, and how much each edge bends."""

    places: Float[np.ndarray, "node 2"]
    bends: Float[np.ndarray, "edge"]
    widths: Float[np.ndarray, "edge"]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        wide, high = self.places.max(0) - self.places.min(0) + 1
        return min(max(1.15 * float(wide), 4.0), 14.0), min(max(0.95 * float(high), 3.0), 16.0)


def graph(
    labels: Sequence[str],
    rows: Sequence[int],
    edges: Shaped[Tensor | np.ndarray, "edge 2"],
    values: Shaped[Tensor | np.ndarray, "edge"],
    *,
    edge_labels: Sequence[str] | None = None,
    title: str = "",
    value_name: str = "value",
) -> Picture:
    """Nodes in rows from the bottom up, and edges between them; pointing at an edge or node shows its values.

    An edge is as wide as its value is large, blue above 0 and orange below.

    Args:
        labels: one for each node.
        rows: which row each node stands in, 0 at the bottom; empty rows take no room.
        edges: for each edge the places of its two nodes in `labels`, from and to.
        values: one for each edge.
        edge_labels: a short name for each edge, such as "q".
        title: shown above the picture.
        value_name: what the values are, with their unit.

    Raises:
        TypeError: edges or values are neither tensors nor arrays of real numbers.
        ValueError: lengths disagree, or an edge leads to a node that is not there.

    >>> import torch
    >>> graph(["input", "L0H0", "logits"], [0, 1, 2], torch.tensor([[0, 1], [1, 2]]), torch.tensor([0.5, -1.0]))
    Picture(title='', caption='')
    """
    pairs = as_array(edges, "edges", "edge node").astype(int)
    sizes = as_array(values, "values", "edge")
    names = checked_labels(labels, "labels", len(rows), "rows")
    short = checked_labels(edge_labels or [""] * len(pairs), "edge_labels", len(pairs), "edges")
    if len(sizes) != len(pairs) or pairs.shape[1] != 2:
        raise ValueError(f"values has {len(sizes)} entries, and edges has shape {pairs.shape}: one value for each edge")
    if pairs.min() < 0 or pairs.max() >= len(names):
        raise ValueError(f"edges leads to node {pairs.max()}, and there are {len(names)} nodes")
    layout = _layout(rows, pairs, sizes)
    data: dict[str, Json] = {
        "nodes": [
            {"label": name, "x": float(x), "y": float(y)} for name, (x, y) in zip(names, layout.places, strict=True)
        ],
        "edges": [
            {"from": int(a), "to": int(b), "label": word, "bend": round(float(bend), 3), "width": round(float(wide), 2)}
            for (a, b), word, bend, wide in zip(pairs, short, layout.bends, layout.widths, strict=True)
        ],
        "values": as_json_numbers(sizes),
        "value_name": value_name,
        "positive": POSITIVE,
        "negative": NEGATIVE,
    }
    return Picture(
        title=title,
        caption="",
        kind="graph",
        data=data,
        size=layout.size,
        draw=lambda figure: _draw(figure, names, pairs, sizes, (short, value_name), layout),
    )


def _layout(rows: Sequence[int], pairs: Shaped[np.ndarray, "edge 2"], values: Float[np.ndarray, "edge"]) -> _Layout:
    used = {row: height for height, row in enumerate(sorted(set(rows)))}
    places = np.zeros((len(rows), 2))
    for row, members in groupby(sorted(range(len(rows)), key=lambda node: rows[node]), key=lambda node: rows[node]):
        nodes = list(members)
        for column, node in enumerate(nodes):
            # Rows are shifted in turn, so that an edge over a row does not run through a node of it.
            places[node] = column - (len(nodes) - 1) / 2 + 0.22 * (used[row] % 2), used[row]
    span = places[pairs[:, 1], 1] - places[pairs[:, 0], 1]
    side = np.where(np.arange(len(pairs)) % 2 == 0, 1.0, -1.0)
    largest = float(np.abs(values[np.isfinite(values)]).max()) if np.isfinite(values).any() else 1.0
    share = np.nan_to_num(np.abs(values) / (largest or 1.0))
    return _Layout(places, side * np.clip(0.12 * (span - 1), 0.0, 0.4), 0.6 + 5.4 * share)


def _draw(
    figure: Figure,
    names: list[str],
    pairs: Shaped[np.ndarray, "edge 2"],
    values: Float[np.ndarray, "edge"],
    words: tuple[list[str], str],
    layout: _Layout,
) -> None:
    short, value_name = words
    patches = matplotlib_parts().patches
    axes = figure.subplots()
    axes.set_axis_off()
    (left, bottom), (right, top) = layout.places.min(0) - 0.7, layout.places.max(0) + 0.5
    axes.set(xlim=(left, right), ylim=(bottom, top))
    figure.supxlabel(drawable(f"{value_name}: blue 0 or more, orange below 0"), fontsize=7, parse_math=False)
    for (start, end), value, bend, width, word in zip(pairs, values, layout.bends, layout.widths, short, strict=True):
        a, b = layout.places[start] + (0, NODE_HEIGHT / 2), layout.places[end] - (0, NODE_HEIGHT / 2)
        colour = POSITIVE if value >= 0 else NEGATIVE
        style = {"arrowstyle": "-|>", "mutation_scale": 5 + 1.5 * width, "color": colour, "alpha": 0.7}
        axes.add_patch(
            patches.FancyArrowPatch(
                a, b, connectionstyle=f"arc3,rad={bend}", linewidth=0.6 * width, shrinkA=0, shrinkB=0, **style
            )
        )
        if word and len(pairs) <= LABELLED_EDGES:
            x, y = _on_curve(a, b, bend, 0.8)
            axes.text(x, y, drawable(word), ha="center", va="center", color="#333333", **LABEL)
    for name, (x, y) in zip(names, layout.places, strict=True):
        box = (x - NODE_WIDTH / 2, y - NODE_HEIGHT / 2)
        axes.add_patch(
            patches.FancyBboxPatch(
                box, NODE_WIDTH, NODE_HEIGHT, boxstyle="round,pad=0,rounding_size=0.08", facecolor="#f6f6f6",
                edgecolor="#555555", linewidth=0.8, zorder=3,
            )
        )  # fmt: skip
        axes.text(x, y, drawable(name), ha="center", va="center", zorder=4, **LABEL)


def _on_curve(
    a: Float[np.ndarray, "2"], b: Float[np.ndarray, "2"], bend: float, share: float
) -> Float[np.ndarray, "2"]:
    """A point of matplotlib's arc3 curve: a parabola whose middle is pulled aside by `bend` times the distance."""
    along = b - a
    middle = (a + b) / 2 + bend * np.array([along[1], -along[0]])
    point: Float[np.ndarray, "2"] = (1 - share) ** 2 * a + 2 * share * (1 - share) * middle + share**2 * b
    return point
