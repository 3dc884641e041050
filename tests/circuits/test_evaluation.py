"""Circuits on models: laws on both hosts, ACDC against one edge at a time, and the circuit of the embedded model."""

import pytest
import torch
from tests.annotations import unchecked

from models.families import hf_model
from toys import TOKENS, toy
from transformer_lens import HookedTransformer, TransformerBridge, demo
from transformer_lens.circuits import Circuit, acdc, completeness, evaluate, minimality
from transformer_lens.errors import ConfigurationError
from transformer_lens.patching import LogitDifference, Nodes, edge_attribution, run_with_edges, written

OTHER = (TOKENS * 7 + 3) % 31
METRIC = LogitDifference(3, 5)
MODELS = {
    "plain": toy,
    "gated_grouped": lambda: toy("gated_grouped"),
    "norms_around": lambda: toy("norms_around"),
    "wrapped gpt_neox": lambda: TransformerBridge.boot_transformers(hf_model=hf_model("gpt_neox"), device="cpu"),
    "wrapped gemma2": lambda: TransformerBridge.boot_transformers(hf_model=hf_model("gemma2"), device="cpu"),
}
NORM_AFTER_ATTENTION = ("norms_around", "wrapped gemma2")  # whose scale couples the heads of a layer
BOOTS = {"native": HookedTransformer.from_pretrained, "wrapped": TransformerBridge.boot_transformers}


def some_circuit(model, seed=0, share=0.3):
    graph = Circuit.of(model)
    return graph.keeping(torch.rand(graph.kept.shape, generator=torch.Generator().manual_seed(seed)) < share)


@pytest.mark.parametrize("name", MODELS)
def test_laws(name, tmp_path):
    model = MODELS[name]()
    whole, part = Circuit.of(model), some_circuit(model)
    loaded = Circuit.load(part.save(tmp_path / "circuit.json"))
    found = evaluate(model, [whole, whole.top(0), part, part.connected(), loaded], TOKENS, OTHER, METRIC, max_rows=4)
    close = {"atol": 2e-4, "rtol": 1e-3}
    torch.testing.assert_close(found.clean, METRIC(model(TOKENS)))
    torch.testing.assert_close(found.values[0], METRIC(model(TOKENS)), **close)
    torch.testing.assert_close(found.values[1], METRIC(model(OTHER)), **close)
    if name not in NORM_AFTER_ATTENTION:
        torch.testing.assert_close(found.values[3], found.values[2], **close)  # what is not connected changes nothing
    torch.testing.assert_close(found.values[4], found.values[2], **close)
    torch.testing.assert_close(found.faithfulness[:2], torch.tensor([1.0, 0.0]), atol=1e-3, rtol=1e-3)
    assert (found.values[2] - found.clean).abs().max() > 0.01


def one_edge_at_a_time(model, threshold):
    """ACDC as the paper tells it."""
    nodes = Nodes.of(model)
    source = written(model, OTHER, nodes)
    clean = model(TOKENS)[:, -1].log_softmax(-1).detach()
    kept = nodes.edges.clone()

    def distance():
        (logits,) = run_with_edges(model, TOKENS, source, (nodes.edges & ~kept).float()[None])
        now = logits[:, -1].log_softmax(-1)
        return float((clean.exp() * (clean - now)).sum(-1).mean())

    before = distance()
    for receiver in reversed(range(len(nodes.receivers))):
        for sender in reversed(range(nodes.receivers[receiver].reads)):
            kept[sender, receiver] = False
            after = distance()
            if after - before < threshold:
                before = after
            else:
                kept[sender, receiver] = True
    return Circuit.of(model).keeping(kept).connected()


@pytest.mark.parametrize("threshold", [0.002, 0.05])
def test_acdc_decides_as_one_edge_at_a_time(threshold):
    model = toy("plain")
    found = acdc(model, TOKENS, OTHER, threshold=threshold, max_rows=16)
    assert found.kept.equal(one_edge_at_a_time(model, threshold).kept)
    assert 0 < found.n_edges < Circuit.of(model).n_edges


def test_acdc_takes_a_distance_of_ones_own():
    model = toy("plain")
    found = acdc(model, TOKENS, OTHER, threshold=0.3, distance=lambda logits: -METRIC(logits))
    kept = evaluate(model, found, TOKENS, OTHER, METRIC)
    assert kept.values.mean() > kept.clean.mean() - 0.3 * int((~found.kept & found.nodes.edges).sum())
    assert min(score for _, _, score in found.edges) >= 0.3


def test_completeness_compares_the_same_knock_outs():
    model, circuit = toy(), some_circuit(toy(), share=0.7)
    whole = Circuit.of(model)
    found = completeness(model, circuit, TOKENS, OTHER, METRIC, sets=[(), ("L0H1", "MLP1")])
    expected = evaluate(
        model, [circuit, circuit.without("L0H1", "MLP1"), whole, whole.without("L0H1", "MLP1")], TOKENS, OTHER, METRIC
    ).values.mean(1)
    torch.testing.assert_close(torch.cat([found.circuit, found.model]), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.gap, (expected[:2] - expected[2:]).abs(), atol=1e-5, rtol=1e-4)
    drawn = completeness(model, circuit, TOKENS, OTHER, METRIC, samples=3, seed=1)
    assert len(drawn.sets) == 4
    assert drawn.sets[0] == ()
    assert set().union(*drawn.sets) <= set(circuit.parts) - {"input"}


@pytest.mark.parametrize("of", ["nodes", "edges"])
def test_minimality_takes_out_one_more(of):
    model, circuit = toy(), some_circuit(toy(), share=0.7)
    found = minimality(model, circuit, TOKENS, OTHER, METRIC, of=of, given=[(), ("L0H0",)])
    label = "MLP0" if of == "nodes" else " -> ".join(circuit.edges[0][:2])
    changes = []
    for base in (circuit, circuit.without("L0H0")):
        kept = base.kept.clone()
        if of == "nodes":
            kept[base.nodes.sender("MLP0")] = False
        else:
            sender, receiver = circuit.edges[0][:2]
            kept[base.nodes.sender(sender), base.nodes.receiver(receiver)] = False
        values = evaluate(model, [base, base.keeping(kept)], TOKENS, OTHER, METRIC).values.mean(1)
        changes.append(float((values[1] - values[0]).abs()))
    assert found[label] == pytest.approx(max(changes), abs=1e-5)
    assert len(found) == (len(circuit.parts) if of == "nodes" else circuit.n_edges)


@pytest.mark.parametrize("host", BOOTS)
def test_eap_ig_finds_the_indirect_object_circuit(host):
    """Name mover L1H0, its query from the S2 reader L0H0; 20 of 479 edges do nine tenths of it on other prompts."""
    model, prompts = BOOTS[host]("demo", device="cpu"), demo.ioi(16)
    metric = LogitDifference(prompts.answer_tokens, prompts.wrong_tokens)
    scores = edge_attribution(model, prompts.tokens, prompts.corrupted_tokens, metric)
    circuit = Circuit.of(model, scores).greedy(20)
    edges = {edge[:2] for edge in circuit.edges}
    assert {("input", "L0H0.v"), ("L0H0", "L1H0.q"), ("L1H0", "logits")} <= edges
    others = demo.ioi(16, seed=7)
    metric = LogitDifference(others.answer_tokens, others.wrong_tokens)
    found = evaluate(model, circuit, others.tokens, others.corrupted_tokens, metric)
    assert 0.85 < float(found.faithfulness) < 1.1
    needed = minimality(model, circuit, others.tokens, others.corrupted_tokens, metric)
    assert min(needed["L0H0"], needed["L1H0"]) > 1


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="There is no circuit to evaluate"):
        evaluate(toy(), [], TOKENS, OTHER, METRIC)
    with unchecked(), pytest.raises(ValueError, match='of is "nodes" or "edges"; got \'heads\''):
        minimality(toy(), Circuit.of(toy()), TOKENS, OTHER, METRIC, of="heads")
    with pytest.raises(ValueError, match=r"Both runs need one shape; got \(2, 7\) and \(2, 5\)"):
        evaluate(toy(), Circuit.of(toy()), TOKENS, OTHER[:, :5], METRIC)


def test_a_circuit_of_another_model_is_refused():
    with pytest.raises(ConfigurationError, match="The circuit is of a model with Nodes"):
        evaluate(toy(), Circuit.of(toy(n_layers=3)), TOKENS, OTHER, METRIC)
