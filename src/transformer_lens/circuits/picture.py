"""The picture of a circuit: its parts in the order of the forward pass, and its edges as wide as their scores."""

from __future__ import annotations

import torch

from transformer_lens.circuits.circuit import Circuit
from transformer_lens.viz import Picture, graph


def picture(circuit: Circuit, *, title: str = "", value_name: str = "score") -> Picture:
    """The kept edges of a circuit, from the input at the bottom to the logits at the top.

    An edge into a head is labelled with the input it leads to (q, k or v); under grouped-query attention an edge into a
    key or value head is drawn to each head that reads it.

    Args:
        circuit: with at least one edge.
        title: shown above; None of it without.
        value_name: what the scores are, with their unit.

    Raises:
        ValueError: no edge is kept.

    Example:
        >>> from transformer_lens.patching import Nodes
        >>> nodes = Nodes(n_layers=1, n_heads=1, n_key_heads=1)
        >>> drawn = picture(Circuit.of(nodes, torch.rand(nodes.edges.shape)), title="All edges")
        >>> drawn.title
        'All edges'
    """
    if circuit.n_edges == 0:
        raise ValueError("The circuit has no edge, so there is nothing to draw.")
    nodes = circuit.nodes
    logits = len(nodes.senders)
    edges, labels, values = [], [], []
    for sender, receiver in circuit.kept.nonzero().tolist():
        kind = nodes.receivers[receiver].kind
        for end in nodes.owners[receiver] or (logits,):
            edges.append((sender, end))
            labels.append(kind if kind in ("q", "k", "v") else "")
            values.append(float(circuit.scores[sender, receiver]))
    used = sorted({node for edge in edges for node in edge})
    place = {node: index for index, node in enumerate(used)}
    names = [*(sender.label for sender in nodes.senders), "logits"]
    rows = [*(2 * sender.layer + (sender.head is None) for sender in nodes.senders), 2 * nodes.n_layers]
    return graph(
        [names[node] for node in used],
        [rows[node] for node in used],
        torch.tensor([[place[a], place[b]] for a, b in edges]),
        torch.tensor(values),
        edge_labels=labels,
        title=title,
        value_name=value_name,
    )
