"""Attribution patching and faithfulness at positions: as recorded with 4.3 on tiny models, and by laws."""

import json
from pathlib import Path

import pytest
import torch
from transformer_lens.tools.analysis import attribution_patching as old
from transformers import AutoModelForCausalLM

from annotations import unchecked
from models.families import hf_model
from models.families import tokens as family_tokens
from toys import TOKENS, toy
from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.circuits import Circuit, evaluate
from transformer_lens.circuits.position_attribution import AttributionResult, EdgeAttributionConfig, attribution_patch
from transformer_lens.circuits.position_faithfulness import FaithfulnessConfig, faithfulness
from transformer_lens.circuits.position_nodes import Node, edge_graph_hooks, enumerate_edges, enumerate_nodes
from transformer_lens.patching import UndefinedPathError
from transformer_lens.patching.edges import EdgeRuns, written
from transformer_lens.patching.gradient_cache import cache_activation_and_gradient, capture_writer_outputs
from transformer_lens.patching.nodes import Nodes

GOLDEN = Path(__file__).parents[1] / "golden" / "studies"
RECORDED = json.loads((GOLDEN / "attribution.json").read_text())
CLEAN, CORRUPT, OTHERS = (torch.tensor(RECORDED[name]) for name in ("clean", "corrupt", "others"))
PAIR = CLEAN[:1], CORRUPT[:1]
BY_EDGE = EdgeAttributionConfig("edge")


def metric(logits):
    return logits[0, -1, 3] - logits[0, -1, 7]


def recorded_model(name, host):
    model = AutoModelForCausalLM.from_pretrained(GOLDEN / name)
    if host == "bridge":
        return TransformerBridge.boot_transformers(hf_model=model, device="cpu")
    return HookedTransformer.from_pretrained_no_processing(name, hf_model=model, device="cpu")


@pytest.fixture(scope="module", params=["gpt2 native", "gpt2 bridge", "llama native", "llama bridge"])
def case(request):
    name, host = request.param.split()
    return recorded_model(name, host), RECORDED[name]


def named(row):
    return Node(*row[:4])


def close(found, expected):
    """Equal to 1e-4, relative to the largest."""
    assert found.keys() == expected.keys()
    largest = max(abs(value) for value in expected.values())
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5 * largest)


# --- as recorded ------------------------------------------------------------------------------------------------------


def test_node_scores_are_as_recorded(case):
    model, recorded = case
    found = attribution_patch(model, CLEAN, CORRUPT, metric)
    close(found.node_scores, {named(row): score for row, score in recorded["nodes"]})
    assert [node.hook_name for node in found.node_scores] == [row[4] for row, _ in recorded["nodes"]]
    assert found.edge_scores == {}


def test_edge_scores_are_as_recorded_and_in_that_order(case):
    model, recorded = case
    found = attribution_patch(model, CLEAN, CORRUPT, metric, BY_EDGE)
    expected = {(named(one), named(other)): score for one, other, score in recorded["edges"]}
    close(found.edge_scores, expected)
    assert list(found.edge_scores) == list(expected)
    close(found.node_scores, {named(row): score for row, score in recorded["nodes_by_edges"]})


def test_the_largest_edges_and_what_they_recover_are_as_recorded(case):
    model, recorded = case
    top = attribution_patch(model, *PAIR, metric, BY_EDGE).top_edges(12)
    assert [edge[:2] for edge in top] == [(named(one), named(other)) for one, other, _ in recorded["top_edges"]]
    mean = FaithfulnessConfig("mean")
    for expected, found in (
        (recorded["faithfulness"], faithfulness(model, *PAIR, metric, top)),
        (recorded["mean_ablated"], faithfulness(model, *PAIR, metric, top, mean, mean_tokens=OTHERS)),
    ):
        for name, value in expected.items():
            assert vars(found)[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_the_cache_is_as_recorded(case):
    model, recorded = case
    found, expected = cache_activation_and_gradient(model, CORRUPT, metric), recorded["cache"]
    assert float(found.metric) == pytest.approx(expected["metric"], rel=1e-5)
    for kind in ("activations", "gradients"):
        assert vars(found)[kind].keys() == expected[kind].keys()
        for name, value in expected[kind].items():
            torch.testing.assert_close(vars(found)[kind][name], torch.tensor(value), rtol=1e-4, atol=1e-5)


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4])
def test_a_parts_edges_sum_to_the_part(case, steps):
    model, _ = case
    nodes = attribution_patch(model, *PAIR, metric, EdgeAttributionConfig("node", steps)).node_scores
    close(attribution_patch(model, *PAIR, metric, EdgeAttributionConfig("edge", steps)).node_scores, nodes)


@pytest.mark.parametrize("granularity", ["node", "edge"])
def test_integrated_over_many_steps_the_embedding_is_the_whole_change(case, granularity):
    model, _ = case
    change = (metric(model(PAIR[0])) - metric(model(PAIR[1]))).item()

    def missed(steps):
        scores = attribution_patch(model, *PAIR, metric, EdgeAttributionConfig(granularity, steps)).node_scores
        return abs(sum(score for node, score in scores.items() if node.kind == "embed") - change)

    assert missed(30) < 0.02 * abs(change) < 0.1 * missed(1)


def test_scores_of_pairs_are_the_mean_of_each_alone(case):
    model, _ = case
    alone = [
        attribution_patch(model, home, away, metric, BY_EDGE).edge_scores
        for home, away in zip(CLEAN.split(1), CORRUPT.split(1), strict=True)
    ]
    both = attribution_patch(model, CLEAN, CORRUPT, metric, BY_EDGE).edge_scores
    close(both, {edge: (alone[0][edge] + alone[1][edge]) / 2 for edge in both})


def test_all_edges_are_the_clean_run_and_none_the_corrupted_one(case):
    model, _ = case
    graph = attribution_patch(model, *PAIR, metric, BY_EDGE).edge_scores
    whole, none = (faithfulness(model, *PAIR, metric, circuit) for circuit in (list(graph), []))
    assert whole.recovered == pytest.approx(1.0, abs=1e-4)
    assert none.recovered == pytest.approx(0.0, abs=1e-4)
    assert whole.circuit_size == whole.total_edges == len(graph) == sum(whole.edge_class_counts.values())
    assert (none.circuit_size, none.edge_class_recovered) == (0, dict.fromkeys(whole.edge_class_counts, none.recovered))
    assert whole.full_metric == pytest.approx(metric(model(PAIR[0])).item())


def test_edges_at_all_positions_are_a_circuit_without_positions(case):
    model, _ = case
    nodes = Nodes.of(model)
    kept = torch.rand(nodes.edges.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    circuit = Circuit.of(model).keeping(kept)
    graph = enumerate_edges(model, cache_activation_and_gradient(model, PAIR[0], metric, edge_graph_hooks(model)))
    places = [place for _ in range(4) for place in nodes.edges.T.nonzero().flip(1).tolist()]  # receiver by receiver
    chosen = [edge for edge, place in zip(graph, places, strict=True) if circuit.kept[tuple(place)]]
    expected = evaluate(model, circuit, *PAIR, metric).faithfulness
    assert faithfulness(model, *PAIR, metric, chosen).recovered == pytest.approx(float(expected[0]), abs=1e-4)


@pytest.mark.parametrize("row", ["gemma2", "olmo2", "qwen3", "gptj", "bloom"])
def test_families_that_share_keys_or_norm_what_they_write(row):
    model = TransformerBridge.boot_transformers(hf_model=hf_model(row), device="cpu")
    clean = family_tokens(1, 5)
    corrupt = (clean * 7 + 3) % 61
    graph = attribution_patch(model, clean, corrupt, metric, EdgeAttributionConfig("edge", 2)).edge_scores
    assert faithfulness(model, clean, corrupt, metric, list(graph)).recovered == pytest.approx(1.0, abs=1e-3)
    assert faithfulness(model, clean, corrupt, metric, []).recovered == pytest.approx(0.0, abs=1e-3)
    assert attribution_patch(model, clean, corrupt, metric).node_scores.keys() == {one for one, _ in graph}


def test_small_changes_are_estimated_right_at_one_position():
    """A position's edge score is the slope of patching that edge there alone."""
    model, other = toy(), TOKENS[:1].flip(1)
    nodes = Nodes.of(model)
    scores = attribution_patch(model, other, TOKENS[:1], metric, BY_EDGE).edge_scores
    runs = EdgeRuns(model, TOKENS[:1], written(model, other, nodes), nodes)
    edge = Node("mlp_out", 4, 0), Node("v_input", 4, 1, 2)
    weights = torch.zeros(1, 7, *nodes.edges.shape)
    weights[0, 4, nodes.sender("MLP0"), nodes.receiver("L1H2.v")] = 1e-2
    moved, still = (metric(next(runs.logits(some))) for some in (weights, 0 * weights))
    assert float(moved - still) * 100 == pytest.approx(scores[edge], rel=0.05)
    assert scores[edge] != 0


def test_no_parameter_gets_a_gradient():
    model = toy()
    cache = cache_activation_and_gradient(
        model, TOKENS, metric, ["hook_embed", "hook_pos_embed", "ln_final.hook_scale"]
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    embed, pos = (cache.gradients[name] for name in ("hook_embed", "hook_pos_embed"))
    torch.testing.assert_close(embed.sum(0), pos.sum(0))
    assert cache.gradients["ln_final.hook_scale"].shape == (2, 7, 1)


def test_without_gradients_one_pass_forward_is_enough():
    found = cache_activation_and_gradient(toy(), TOKENS, metric, "blocks.0.hook_mlp_out", compute_gradient=False)
    assert found.gradients == {"blocks.0.hook_mlp_out": None}
    with torch.inference_mode():  # no gradient could be taken here
        again = cache_activation_and_gradient(toy(), TOKENS, metric, "blocks.0.hook_mlp_out", compute_gradient=False)
    assert float(again.metric) == pytest.approx(float(found.metric))


def test_what_parts_write_sums_to_the_stream():
    model = toy()
    found = capture_writer_outputs(model, TOKENS)
    _, cache = model.run_with_cache(TOKENS)
    heads = sum(value.sum(2) for name, value in found.items() if "result" in name)
    mlps = sum(value for name, value in found.items() if "mlp" in name)
    biases = sum(block.attn.b_O for block in model.blocks)
    total = found["hook_embed"] + cache["hook_pos_embed"] + heads + mlps + biases
    torch.testing.assert_close(total, cache["resid_post", -1])


def test_the_graph_of_a_cache():
    model = toy()
    cache = cache_activation_and_gradient(model, TOKENS, metric, edge_graph_hooks(model), compute_gradient=False)
    nodes, graph = enumerate_nodes(model, cache), enumerate_edges(model, cache)
    assert len(nodes) == 7 * len(Nodes.of(model).senders)
    assert len(graph) == len(set(graph)) == 7 * int(Nodes.of(model).edges.sum())
    assert all(one.position == other.position for one, other in graph)
    small = cache_activation_and_gradient(model, TOKENS, metric, "hook_embed", compute_gradient=False)
    with pytest.raises(ValueError, match=r"lacks blocks\.0\.attn\.hook_z, .*: 4 of the 5 hook points"):
        enumerate_nodes(model, small)


def test_top_scores_by_size():
    nodes = {Node("embed", 0): 1.0, Node("embed", 1): -3.0, Node("embed", 2): 2.0}
    result = AttributionResult(nodes)
    assert [score for _, score in result.top_nodes(2)] == [-3.0, 2.0]
    assert len(result.top_nodes()) == 3
    assert result.top_edges() == []


def test_the_old_path_holds_the_same_names():
    assert old.attribution_patch is attribution_patch
    assert old.faithfulness is faithfulness


# --- what is refused --------------------------------------------------------------------------------------------------


def test_which_runs_are_refused():
    model = recorded_model("gpt2", "bridge")
    with unchecked(), pytest.raises(ValueError, match=r"\[pair, pos\] of one shape; got \(1, 4\) and \(1, 3\)"):
        attribution_patch(model, PAIR[0], PAIR[1][:, :3], metric)
    with unchecked(), pytest.raises(ValueError, match="The metric is of one pair; got 2"):
        faithfulness(model, CLEAN, CORRUPT, metric, [])
    with pytest.raises(ValueError, match="Both runs have the same metric"):
        faithfulness(model, PAIR[0], PAIR[0], metric, [])
    with pytest.raises(UndefinedPathError, match="gives no gradient"):
        attribution_patch(model, *PAIR, lambda logits: logits.detach()[0, -1, 3])
    with pytest.raises(ValueError, match="means no hook point"):
        cache_activation_and_gradient(model, PAIR[0], metric, lambda name: False)
    with pytest.raises(ValueError, match="Token ids have no gradient"):
        cache_activation_and_gradient(model, PAIR[0], metric, "embed.hook_in")
    model.train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        attribution_patch(model, *PAIR, metric)


def test_which_circuits_and_means_are_refused():
    model = recorded_model("gpt2", "native")
    mean = FaithfulnessConfig("mean")
    with pytest.raises(ValueError, match=r"1 edges of the circuit are not in this model's graph, .*mlp_in"):
        faithfulness(model, *PAIR, metric, [(Node("embed", 0), Node("mlp_in", 1, 0))])
    with pytest.raises(ValueError, match="give mean_tokens"):
        faithfulness(model, *PAIR, metric, [], mean)
    with pytest.raises(ValueError, match="leave it out"):
        faithfulness(model, *PAIR, metric, [], mean_tokens=OTHERS)
    with pytest.raises(ValueError, match=r"prompts \[prompt, 4\], one at least; got \(3, 3\)"):
        faithfulness(model, *PAIR, metric, [], mean, mean_tokens=OTHERS[:, :3])
    with pytest.raises(ValueError, match="a prompt of the pair itself"):
        faithfulness(model, *PAIR, metric, [], mean, mean_tokens=torch.cat([OTHERS, PAIR[1]]))


def test_which_options_are_refused():
    with pytest.raises(ValueError, match="ig_steps is 1 or more; got 0"):
        EdgeAttributionConfig(ig_steps=0)
    with unchecked(), pytest.raises(ValueError, match=r"one of embed, attn_head_out, .*; got 'head'"):
        Node("head", 0)
    with pytest.raises(ValueError, match="takes no layer and takes no head; got layer=1"):
        Node("embed", 0, layer=1)
