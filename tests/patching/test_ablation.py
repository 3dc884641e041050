"""Ablation gives the numbers of plain hooks, and says what it cannot silence."""

import pytest
import torch

from toys import TOKENS, toy
from transformer_lens import HookedTransformer, TransformerBridge, demo
from transformer_lens.errors import UnknownNameError
from transformer_lens.patching import At, LogitDifference, ablate, knock_out, part_labels

OTHER = (TOKENS * 7 + 3) % 31
METRIC = LogitDifference(3, 5)
PARTS = ["L0H1", "attn1", "MLP0", "MLP1.7", "layer0", At("resid1", 3), At("L1H2", (2, -1))]
HOOKS = {
    "L0H1": [("blocks.0.attn.hook_z", (slice(None), slice(None), 1))],
    "attn1": [("blocks.1.hook_attn_out", slice(None))],
    "MLP0": [("blocks.0.hook_mlp_out", slice(None))],
    "MLP1.7": [("blocks.1.mlp.hook_post", (..., 7))],
    "layer0": [("blocks.0.hook_attn_out", slice(None)), ("blocks.0.hook_mlp_out", slice(None))],
    "resid1@3": [("blocks.1.hook_resid_pre", (slice(None), 3))],
    "L1H2@2,-1": [("blocks.1.attn.hook_z", (slice(None), [2, 6], 2))],
}


def silenced(model, tokens, places, values):
    def edit(index, value):
        def change(activation, hook):
            activation[index] = value.expand_as(activation)[index]
            return activation

        return change

    hooks = [(hook, edit(index, values[hook])) for hook, index in places]
    return METRIC(model.run_with_hooks(tokens, fwd_hooks=hooks))


@pytest.mark.parametrize("method", ["zero", "mean", "resample"])
def test_each_part_alone(method):
    model = toy()
    _, cache = model.run_with_cache(TOKENS, return_cache_object=False)
    made = {
        "zero": lambda x: torch.zeros(()),
        "mean": lambda x: x.mean(0, keepdim=True),
        "resample": lambda x: x.flip(0),  # of two rows, another row is the other row
    }[method]
    values = {name: made(x) for name, x in cache.items()}
    found = ablate(model, TOKENS, PARTS, METRIC, method=method)
    assert found.labels == tuple(HOOKS)
    expected = torch.stack([silenced(model, TOKENS, places, values) for places in HOOKS.values()])
    torch.testing.assert_close(found.values, expected, atol=5e-5, rtol=1e-4)
    torch.testing.assert_close(found.plain, METRIC(model(TOKENS)))
    torch.testing.assert_close(found.effect, (expected - found.plain).mean(1), atol=5e-5, rtol=1e-4)


def test_a_reference_gives_the_mean():
    model = toy()
    _, cache = model.run_with_cache(OTHER)
    found = ablate(model, TOKENS, ["L0H1"], METRIC, reference=OTHER)
    values = {"blocks.0.attn.hook_z": cache["z", 0].mean(0, keepdim=True)}
    torch.testing.assert_close(found.values[0], silenced(model, TOKENS, HOOKS["L0H1"], values), atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("keep", [False, True])
def test_knock_out_is_cumulative(keep):
    model, order = toy(), ["MLP0", "L1H2", "L0H1"]
    found = knock_out(model, TOKENS, order, METRIC, keep=keep, method="zero")
    zero = {f"blocks.{layer}.{part}": torch.zeros(()) for layer in (0, 1) for part in ("attn.hook_z", "hook_mlp_out")}
    places = {**HOOKS, "L1H2": [("blocks.1.attn.hook_z", (slice(None), slice(None), 2))]}
    sets = [order[1:], order[2:], []] if keep else [order[:1], order[:2], order]
    expected = [silenced(model, TOKENS, [p for part in some for p in places[part]], zero) for some in sets]
    torch.testing.assert_close(found.values, torch.stack(expected), atol=5e-5, rtol=1e-4)
    assert found.labels == tuple(order)


def test_the_heads_of_the_ioi_circuit_matter_most():
    model, prompts = HookedTransformer.from_pretrained("demo"), demo.ioi(16)
    metric = LogitDifference(prompts.answer_tokens, prompts.wrong_tokens)
    found = ablate(model, prompts.tokens, part_labels(model, "heads"), metric)
    assert set(found.order()[:2]) == {"L0H0", "L1H0"}
    curve = knock_out(model, prompts.tokens, found.order(), metric, keep=True)
    assert curve.values[2].mean() > 0.5 * curve.plain.mean()


@pytest.mark.parametrize("method", ["zero", "mean", "resample"])
def test_both_hosts_agree(method):
    prompts = demo.ioi(4)
    metric = LogitDifference(prompts.answer_tokens, prompts.wrong_tokens)
    parts = ["L0H0", "attn1", "MLP2", "MLP3.5", "layer1", At("resid2", -1)]
    boots = (HookedTransformer.from_pretrained_no_processing, TransformerBridge.boot_transformers)
    found = [ablate(boot("demo", device="cpu"), prompts.tokens, parts, metric, method=method).values for boot in boots]
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)


def test_labels_of_every_kind():
    model = toy()
    assert part_labels(model, "neurons", layer=-1)[:2] == ["MLP1.0", "MLP1.1"]
    assert part_labels(model, "layers") == ["layer0", "layer1"]
    assert part_labels(model, "attn") == ["attn0", "attn1"]
    assert ablate(toy("attn_only"), TOKENS, ["layer0"], METRIC).values.shape == (1, 2)


@pytest.mark.parametrize(
    ("parts", "options", "error", "message"),
    [
        (["head 3"], {}, UnknownNameError, "'head 3' is no part"),
        (["L0H9"], {}, UnknownNameError, "no 'L0H9' in a model of 2 layers, 4 heads and 20 neurons"),
        (["MLP1.20"], {}, UnknownNameError, "no 'MLP1.20'"),
        (["L0H0"], {"method": "noise"}, ValueError, "'noise' is no method: zero, mean, resample"),
        (["L0H0"], {"method": "zero", "reference": OTHER}, ValueError, "reference has no effect"),
        (["L0H0"], {"reference": OTHER[:, :3]}, ValueError, "needs prompts of 7 tokens"),
    ],
)
def test_what_is_wrong_is_said(parts, options, error, message):
    with pytest.raises(error, match=message):
        ablate(toy(), TOKENS, parts, METRIC, **options)


def test_a_single_prompt_has_no_mean():
    with pytest.raises(ValueError, match="over a single prompt changes nothing"):
        ablate(toy(), TOKENS[:1], ["L0H0"], METRIC)
    with pytest.raises(ValueError, match="There is no layer 9 in a model of 2 layers"):
        part_labels(toy(), "heads", layer=9)
    with pytest.raises(ValueError, match="has no mlps"):
        part_labels(toy("attn_only"), "mlps")
    with pytest.raises(UnknownNameError, match="'MLP0' cannot be silenced"):
        ablate(toy("attn_only"), TOKENS, ["MLP0"], METRIC)
