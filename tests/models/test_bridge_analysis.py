"""Analyses of a bridge's cache: those of the native host with the same weights, and parts that sum to the whole."""

import copy
from functools import cache

import pytest
import torch
from families import hf_model, tokens
from torch import nn

from transformer_lens import ActivationCache, HookedTransformer, SVDInterpreter, TransformerBridge
from transformer_lens.cache.errors import UndefinedDecompositionError

pytestmark = pytest.mark.filterwarnings("ignore::transformer_lens.weights.processing.process.ProcessingWarning")
FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neox", "phi3", "bloom", "gptj", "granite", "olmo2", "falcon (40b)",
            "falcon (7b)", "mpt", "cohere", "mixtral"]  # fmt: skip
DIRECTION = torch.randn(32, 2, generator=torch.Generator().manual_seed(3))


@cache
def runs(row, compatible=False):
    """The caches of both hosts."""
    bridge = TransformerBridge.boot_transformers(hf_model=copy.deepcopy(hf_model(row)))
    load = HookedTransformer.from_pretrained if compatible else HookedTransformer.from_pretrained_no_processing
    native = load("native", hf_model=hf_model(row), device="cpu")
    if compatible:
        bridge.enable_compatibility_mode()
    with torch.no_grad():
        return bridge.run_with_cache(tokens())[1], native.run_with_cache(tokens())[1]


def questions(kind):
    """Every analysis that is defined for such MLPs."""
    last = {"apply_ln": True, "pos_slice": -1}
    yield "accumulated_resid", {"apply_ln": True}
    yield "accumulated_resid", {"layer": 1, "mlp_input": True, "apply_ln": True}
    yield "decompose_resid", {}
    yield "decompose_resid", {"layer": 2, "mlp_input": True, "apply_ln": True}
    yield "stack_head_results", {"incl_remainder": True, **last}
    yield "get_full_resid_decomposition", {"expand_neurons": False, "apply_ln": True}
    yield "stack_activation", {"activation_name": "z"}
    if kind == "neurons":
        yield "get_full_resid_decomposition", {"layer": 1, **last}
        yield "get_full_resid_decomposition", {"project_output_onto": DIRECTION}
        yield "stack_neuron_results", {"layer": -1, "incl_remainder": True}
        yield "get_neuron_results", {"layer": 1}


def close(found, expected, tolerance=5e-4):
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("row", "compatible"),
    [*((row, False) for row in FAMILIES), ("gpt2", True), ("gemma2", True), ("bloom", True), ("llama", True)],
)
@torch.no_grad()
def test_analyses_are_the_native_hosts(row, compatible):
    bridged, native = runs(row, compatible)
    kind = native.readout.layers[0].mlp
    assert bridged.readout.layers[0].mlp == kind
    for name, arguments in questions(kind):
        labelled = {} if name in ("stack_activation", "get_neuron_results") else {"return_labels": True}
        found, expected = (getattr(run, name)(**arguments, **labelled) for run in (bridged, native))
        if labelled:
            assert found[1] == expected[1]
            found, expected = found[0], expected[0]
        close(found, expected)
    for stack in ("decompose_resid", "stack_head_results"):
        for wrong in (None, 11):
            attributions = [run.logit_attrs(getattr(run, stack)(), tokens()[:, -1], wrong) for run in (bridged, native)]
            close(*attributions)
    close(bridged.logit_lens(positions=None).values, native.logit_lens(positions=None).values)


@pytest.mark.parametrize("row", FAMILIES)
@torch.no_grad()
def test_parts_sum_to_the_stream_and_to_the_logits(row):
    run, _ = runs(row)
    final = run["resid_post", 2]
    close(run.decompose_resid().sum(0), final)
    close(run.stack_head_results(incl_remainder=True).sum(0), final)
    neurons = run.readout.layers[0].mlp == "neurons"
    close(run.get_full_resid_decomposition(expand_neurons=neurons).sum(0), final)
    logits = run.model(tokens())
    close(run.readout.logits(run.accumulated_resid(apply_ln=True)[-1]), logits)
    if run.readout.logit_cap is None:
        parts = run.get_full_resid_decomposition(expand_neurons=neurons)
        difference = run.logit_attrs(parts, 5, 9).sum(0)
        norm, readout = run.readout.ln_final, run.readout
        beside = (readout.unembedding() @ (torch.eye(61)[5] - torch.eye(61)[9])) @ (
            torch.zeros(32) if norm.b is None else norm.b
        )
        close(difference + beside + readout.b_U[5] - readout.b_U[9], logits[..., 5] - logits[..., 9])


@pytest.mark.parametrize("row", ["llama", "gpt_neox", "granite", "falcon (7b)"])
@torch.no_grad()
def test_heads_are_read_and_composed_as_on_the_native_host(row):
    bridge, native = (run.model for run in runs(row))
    for mode in ("Q", "K", "V"):
        close(bridge.all_composition_scores(mode), native.all_composition_scores(mode))
    close(bridge.QK.AB, native.QK.AB)
    close(bridge.OV.AB, native.OV.AB)
    assert bridge.all_head_labels == native.all_head_labels()
    for vectors in ("OV", "w_in", "w_out"):
        found, expected = (
            SVDInterpreter(model).get_singular_vectors(
                vectors, 1, num_vectors=4, head_index=2 if vectors == "OV" else None
            )
            for model in (bridge, native)
        )
        close(found.abs(), expected.abs(), 5e-3)
    close(bridge.accumulated_bias(2, mlp_input=True), native.accumulated_bias(2, mlp_input=True))


@torch.no_grad()
def test_a_cache_without_a_batch_axis_answers_alike():
    bridge = runs("gpt2")[0].model
    _, cache = bridge.run_with_cache(tokens()[:1], remove_batch_dim=True)
    close(
        cache.get_full_resid_decomposition(apply_ln=True),
        runs("gpt2")[0].get_full_resid_decomposition(apply_ln=True)[:, 0],
    )


def test_gradients_flow_through_the_parts():
    bridge = runs("gpt2")[0].model
    cache = bridge.run_with_cache(tokens())[1]
    z = cache["z", 1].clone().requires_grad_()
    cache = ActivationCache({**cache, "blocks.1.attn.o.hook_in": z}, bridge)
    assert cache["z", 1] is z
    cache.logit_attrs(cache.get_full_resid_decomposition(), 4).sum().backward()
    assert z.grad.abs().min() > 0


@torch.no_grad()
def test_of_a_clients_module_nothing_is_supposed():
    bridge = TransformerBridge.boot_transformers(hf_model=copy.deepcopy(hf_model("gpt2")))
    bridge.blocks[1].mlp = nn.Linear(32, 32)
    bridge.setup()
    _, cache = bridge.run_with_cache(tokens())
    assert [layer.mlp for layer in cache.readout.layers] == ["neurons", "opaque", "neurons"]
    close(cache.decompose_resid().sum(0), cache["resid_post", 2])
    with pytest.raises(UndefinedDecompositionError, match="replaced by a module"):
        cache.stack_neuron_results(3)


@pytest.mark.parametrize("row", ["gpt2", "gemma2", "bloom"])
@torch.no_grad()
def test_a_saved_cache_answers_to_both_spellings_and_without_its_model(row, tmp_path):
    run, native = runs(row)
    run.save(tmp_path / "cache.safetensors", weights=True)
    loaded = ActivationCache.load(tmp_path / "cache.safetensors")
    assert set(loaded) == set(run)
    for name in native:
        assert (name in loaded) == (name in run)
        assert name not in run or torch.equal(loaded[name], run[name])
    close(loaded.get_full_resid_decomposition(apply_ln=True), run.get_full_resid_decomposition(apply_ln=True), 1e-6)
    close(loaded.logit_lens(positions=None).values, run.logit_lens(positions=None).values, 1e-5)


@torch.no_grad()
def test_a_part_of_a_cache_keeps_the_spellings_of_the_whole(tmp_path):
    """Without ln1_post beside it, the name alone would not say where attention's output is."""
    bridge = runs("gemma2")[0].model
    _, cache = bridge.run_with_cache(tokens(), names_filter=["blocks.0.attn.hook_out", "blocks.1.hook_attn_out"])
    cache.save(tmp_path / "cache.safetensors")
    loaded = ActivationCache.load(tmp_path / "cache.safetensors")
    assert ("attn_out", 0) not in loaded
    assert torch.equal(loaded["attn_out", 1], cache["blocks.1.ln1_post.hook_out"])
    plain = ActivationCache({"blocks.0.attn.o.hook_in": torch.ones(1, 2, 3, 4)}, None)
    assert plain["z", 0] is plain["blocks.0.attn.hook_z"]


@torch.no_grad()
def test_some_rows_of_a_cache_are_taken_though_positions_are_embedded_once():
    run, _ = runs("gpt2")
    assert run["pos_embed"].shape[0] == 1
    for rows in (1, [0, 2]):
        close(run.apply_slice_to_batch_dim(rows).decompose_resid(), run.decompose_resid()[:, rows], 0)
