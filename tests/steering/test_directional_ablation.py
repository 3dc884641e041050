"""Directional ablation: hooks and weights give the same logits, on both hosts, and saved weights too."""

import copy

import pytest
import torch
from tests.models.families import ROWS, hf_model, tokens
from tests.toys import toy
from transformers import AutoModelForCausalLM

from transformer_lens import HookedTransformer, TransformerBridge, demo
from transformer_lens.specs import UnsupportedModelError
from transformer_lens.steering import ablate_direction, ablate_direction_in_weights, contrast
from transformer_lens.weights.checkpoints import CheckpointError

THROUGH_NORMS = ["gemma2", "gemma3", "bloom", "olmo2", "olmo3", "exaone4", "glm4", "hyperclovax", "flex_olmo"]
FAMILIES = [row for row in ROWS if row not in [*THROUGH_NORMS, "xglm"]]
SOME = ["gpt2", "gpt_neo", "gptj", "gpt_neox", "opt", "llama", "llama (llama3 rope)", "granite", "cohere", "phi",
        "falcon (40b)", "mpt", "qwen2_moe", "granitemoe", "mixtral", "gpt_oss"]  # fmt: skip


def hosts(row):
    model = copy.deepcopy(hf_model(row))
    yield HookedTransformer.from_pretrained_no_processing("row", hf_model=model, device="cpu")
    yield TransformerBridge.boot_transformers("row", hf_model=model, device="cpu")


def directions(model, count=1):
    return torch.randn(count, model.cfg.d_model, generator=torch.Generator().manual_seed(0))


def streams(model):
    return [model.hook_dict[f"blocks.{layer}.hook_resid_post"].name for layer in range(model.cfg.n_layers)]


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[] if row in SOME else [pytest.mark.slow]) for row in FAMILIES]
)
def test_hooks_and_weights_give_the_same_logits(row):
    for model in hosts(row):
        ids, gone = tokens(), directions(model, 2)
        plain = model(ids)
        with model.edit(ablate_direction(model, gone)):
            hooked, cache = model.run_with_cache(ids)
        for name in streams(model):
            coordinates = cache[name] @ gone.T
            assert coordinates.abs().max() < 1e-3 * cache[name].norm(dim=-1).max()
        torch.testing.assert_close(model(ids), plain, rtol=0, atol=0)
        ablate_direction_in_weights(model, gone)
        torch.testing.assert_close(model(ids), hooked, rtol=1e-4, atol=1e-4)
        assert (hooked - plain).abs().max() > 1e-2


@pytest.mark.parametrize("row", ["gemma2", "bloom", "olmo2"])
def test_norms_between_weights_and_stream_are_refused_and_hooks_do(row):
    for model in hosts(row):
        gone = directions(model)
        with pytest.raises(UnsupportedModelError, match=r"through a norm \(.*\), which no change .* Ablate by hooks"):
            ablate_direction_in_weights(model, gone)
        with model.edit(ablate_direction(model, gone)):
            _, cache = model.run_with_cache(tokens())
        for name in streams(model):
            assert (cache[name] @ gone.T).abs().max() < 1e-3 * cache[name].norm(dim=-1).max()


def test_positions_that_are_computed_cannot_lose_a_direction_on_a_bridge():
    native, bridge = hosts("xglm")
    with pytest.raises(CheckpointError, match=r"pos_embed\.W_pos was edited.* its positions are computed"):
        ablate_direction_in_weights(bridge, directions(bridge))
    with native.edit(ablate_direction(native, directions(native))):
        hooked = native(tokens())
    ablate_direction_in_weights(native, directions(native))
    torch.testing.assert_close(native(tokens()), hooked, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("row", ["gpt2", "llama (llama3 rope)", "granite"])
def test_the_other_owner_of_the_weights_keeps_them(row):
    model, ids = hf_model(row), tokens()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = model(ids).logits
    for boot in (HookedTransformer.from_pretrained_no_processing, TransformerBridge.boot_transformers):
        mine = boot("row", hf_model=model, device="cpu")
        ablate_direction_in_weights(mine, directions(mine))
        assert (mine(ids) - logits).abs().max() > 1e-2
    assert torch.equal(model(ids).logits, logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("processed", [False, True])
def test_saved_and_loaded_again(tmp_path, processed):
    load = HookedTransformer.from_pretrained if processed else HookedTransformer.from_pretrained_no_processing
    model = load("demo", device="cpu")
    ids = model.to_tokens("When John and Mary went to the store, Mary gave a bottle to")
    ablate_direction_in_weights(model, directions(model))
    model.save_pretrained(tmp_path)
    hf = AutoModelForCausalLM.from_pretrained(tmp_path)
    wanted = model(ids).log_softmax(-1)
    torch.testing.assert_close(hf(ids).logits.log_softmax(-1), wanted, rtol=1e-4, atol=1e-4)
    again = HookedTransformer.from_pretrained_no_processing(tmp_path, device="cpu")
    torch.testing.assert_close(again(ids).log_softmax(-1), wanted, rtol=1e-4, atol=1e-4)
    assert (load("demo", device="cpu")(ids).log_softmax(-1) - wanted).abs().max() > 0.01


def test_a_bridge_saved_and_loaded_again(tmp_path):
    bridge = TransformerBridge.boot_transformers("demo", device="cpu")
    ids = bridge.to_tokens("The Eiffel Tower is in")
    ablate_direction_in_weights(bridge, directions(bridge))
    bridge.original_model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(ids).logits, bridge(ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "attn_only", "parallel_rotary", "experts", "shortformer", "alibi"])
def test_toys(kind):
    model, ids = toy(kind), torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
    gone = directions(model)
    with model.edit(ablate_direction(model, gone)):
        hooked = model(ids)
    ablate_direction_in_weights(model, gone)
    torch.testing.assert_close(model(ids), hooked, rtol=1e-4, atol=1e-5)


def test_without_the_direction_of_gender_the_demo_model_loses_its_pronouns():
    model = HookedTransformer.from_pretrained("demo", device="cpu")
    prompts = demo.pronouns(40, seed=1, split="train")
    women = [p for p, a in zip(prompts.prompts, prompts.answers, strict=True) if a == " she"]
    men = [p for p, a in zip(prompts.prompts, prompts.answers, strict=True) if a == " he"]
    hook = "blocks.3.hook_resid_mid"
    direction = contrast(model, women, men, hook).mean_difference(hook)
    held_out = demo.pronouns(20)
    rows = torch.arange(len(held_out))

    def difference():
        logits = model(held_out.tokens)[:, -1]
        return logits[rows, held_out.answer_tokens] - logits[rows, held_out.wrong_tokens]

    plain = difference()
    with model.edit(ablate_direction(model, direction)):
        ablated = difference()
    assert (plain > 0).all()
    assert ablated.mean() < 0.5 * plain.mean()
