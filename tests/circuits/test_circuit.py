"""The graph itself: which edges are chosen, what is connected, and files."""

import itertools
import json

import pytest
import torch

from transformer_lens.circuits import Circuit, picture
from transformer_lens.errors import ConfigurationError, UnknownNameError
from transformer_lens.patching import Nodes

NODES = Nodes(n_layers=2, n_heads=2, n_key_heads=1)


def drawn(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Circuit.of(NODES, torch.randn(NODES.edges.shape, generator=generator) * NODES.edges)


def with_edges(*edges):
    kept = torch.zeros_like(NODES.edges)
    for sender, receiver in edges:
        kept[NODES.sender(sender), NODES.receiver(receiver)] = True
    return drawn().keeping(kept)


def test_senders_and_receivers_in_order():
    assert [sender.label for sender in NODES.senders] == ["input", "L0H0", "L0H1", "MLP0", "L1H0", "L1H1", "MLP1"]
    assert [r.label for r in NODES.receivers][:6] == ["L0H0.q", "L0H1.q", "L0G0.k", "L0G0.v", "MLP0", "L1H0.q"]
    assert NODES.receivers[-1].reads == 7
    # Four readers of the input, MLP0 of three senders; four of four, MLP1 of six; the logits of all seven.
    assert int(NODES.edges.sum()) == 4 + 3 + 16 + 6 + 7
    parallel = Nodes(n_layers=2, n_heads=2, n_key_heads=2, parallel=True)
    assert parallel.receivers[parallel.receiver("MLP0")].reads == 1


def test_top_and_above_take_the_largest():
    circuit = drawn()
    sizes = circuit.scores[NODES.edges].abs().sort(descending=True).values
    assert circuit.top(5).scores[circuit.top(5).kept].abs().sort(descending=True).values.tolist() == sizes[:5].tolist()
    assert circuit.above(float(sizes[5])).kept.equal(circuit.top(5).kept)
    assert [abs(score) for _, _, score in circuit.top(5).edges] == sizes[:5].tolist()
    assert circuit.top(0).n_edges == 0


def test_greedy_grows_from_the_logits():
    circuit = drawn()
    for n in range(1, circuit.n_edges + 1):
        chosen = circuit.greedy(n)
        assert chosen.n_edges == n
        assert bool((chosen.kept | ~circuit.greedy(n - 1).kept).all())  # each grows out of the one before
        read = chosen._read(chosen.kept)
        assert bool(read[chosen.kept.any(0)].all()), "an edge leads nowhere"
    assert circuit.greedy(1).edges[0][1] == "logits"


def ways(circuit):
    """All edges on a way from input to logits, by walking every way."""
    links: dict[str, list] = {}
    for sender, receiver in circuit.kept.nonzero().tolist():
        for end in NODES.owners[receiver] or (None,):
            name = None if end is None else NODES.senders[end].label
            links.setdefault(NODES.senders[sender].label, []).append((name, (sender, receiver)))
    found = set()

    def walk(node, path):
        if node is None:
            found.update(path)
        for end, edge in links.get(node, []):
            walk(end, [*path, edge])

    walk("input", [])
    return found


@pytest.mark.parametrize("seed", range(6))
def test_connected_is_what_lies_on_a_way(seed):
    generator = torch.Generator().manual_seed(seed)
    circuit = drawn().keeping(torch.rand(NODES.edges.shape, generator=generator) < 0.25)
    assert set(map(tuple, circuit.connected().kept.nonzero().tolist())) == ways(circuit)


def test_an_edge_into_a_shared_key_feeds_every_head_that_reads_it():
    circuit = with_edges(("input", "L0G0.k"), ("L0H1", "logits"), ("L0H0", "MLP0"))
    assert [edge[:2] for edge in circuit.connected().edges].sort() == [("input", "L0G0.k"), ("L0H1", "logits")].sort()
    assert circuit.connected().parts == ["input", "L0H1"]


def test_without_takes_all_edges_of_a_sender():
    circuit = drawn().without("input", "MLP1")
    assert circuit.n_edges == drawn().n_edges - len(NODES.receivers) - 1
    assert "input" not in circuit.parts


def test_saved_and_loaded_is_the_same(tmp_path):
    circuit = drawn().greedy(9)
    circuit.about["task"] = "none"
    path = circuit.save(tmp_path / "circuit.json")
    again = Circuit.load(path)
    assert again.nodes == NODES
    assert again.about == {"task": "none"}
    assert torch.equal(again.scores, circuit.scores)
    assert torch.equal(again.kept, circuit.kept)
    assert len(json.loads(path.read_text())["edges"]) == int(NODES.edges.sum())


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ValueError, match="n is from 0 to the 36 edges that are kept; got 37"):
        drawn().top(37)
    with pytest.raises(ValueError, match="a graph of these nodes has"):
        Circuit.of(NODES, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="pairs that are no edges"):
        Circuit(NODES, torch.zeros(NODES.edges.shape), torch.ones(NODES.edges.shape, dtype=torch.bool))
    with pytest.raises(UnknownNameError, match="no sender 'L5H0'"):
        drawn().without("L5H0")
    (tmp_path / "text").write_text("no circuit")
    with pytest.raises(ConfigurationError, match="holds no circuit: it is no JSON"):
        Circuit.load(tmp_path / "text")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ConfigurationError, match="holds no circuit of version 1"):
        Circuit.load(tmp_path / "other.json")
    with pytest.raises(ValueError, match="nothing to draw"):
        picture(drawn().top(0))


def test_the_picture_has_each_edge_once_for_each_head_it_feeds():
    circuit = with_edges(("input", "L0G0.k"), ("L0H1", "logits"), ("input", "L0H0.q"))
    data = picture(circuit, title="A").data
    names = [node["label"] for node in data["nodes"]]
    drawn_edges = {(names[edge["from"]], names[edge["to"]], edge["label"]) for edge in data["edges"]}
    assert drawn_edges == {
        ("input", "L0H0", "k"), ("input", "L0H1", "k"), ("input", "L0H0", "q"), ("L0H1", "logits", ""),
    }  # fmt: skip
    heights = {node["label"]: node["y"] for node in data["nodes"]}
    assert heights["input"] < heights["L0H0"] < heights["logits"]
    assert all(a != b for a, b in itertools.combinations([(n["x"], n["y"]) for n in data["nodes"]], 2))
