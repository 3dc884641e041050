"""What each expert computes, seen through transformers' loop over experts: values, edits, nothing left behind."""

import copy

import pytest
import torch
from tests.models.families import hf_model, tokens

from transformer_lens.models.hooked_transformer import HookedTransformer
from transformer_lens.models.transformer_bridge import TransformerBridge
from transformer_lens.models.verifying import Verifier
from transformer_lens.wrapped.expert_parts import UnseenExpertsError, stack_of

ROWS = ("mixtral", "qwen3_moe", "qwen2_moe", "olmoe", "granitemoe", "gpt_oss")
EXPERTS = "blocks.1.mlp.experts."


def bridge_over(row):
    return TransformerBridge.boot_transformers(hf_model=copy.deepcopy(hf_model(row)))


def weights_of(cache):
    """[token, expert], zero where an expert was not chosen, as the experts were given them."""
    chosen, weights = cache["blocks.1.mlp.hook_expert_indices"], cache["blocks.1.mlp.hook_expert_weights"]
    return torch.zeros_like(weights).scatter(1, chosen, weights.gather(1, chosen))


@pytest.mark.parametrize("row", ROWS)
@torch.no_grad()
def test_weighted_outputs_of_experts_sum_to_what_the_experts_write(row):
    bridge = bridge_over(row)
    _, cache = bridge.run_with_cache(tokens())
    experts = bridge.original_model.get_submodule(bridge.host.anatomy.layer(1).mlp.experts)
    written = []
    handle = experts.register_forward_hook(lambda module, args, output: written.append((args, output)))
    bridge(tokens())
    handle.remove()
    (_, indices, weights), total = written[0]
    made = torch.zeros_like(total)
    for expert in range(4):
        token, slot = (indices == expert).nonzero(as_tuple=True)
        if f"{EXPERTS}{expert}.hook_out" not in cache:
            assert not token.numel()
            continue
        by_choice = (slot * len(indices) + token).argsort()  # first choices first
        token, slot = token[by_choice], slot[by_choice]
        made.index_add_(0, token, weights[token, slot, None] * cache[f"{EXPERTS}{expert}.hook_out"])
    torch.testing.assert_close(made, total, atol=1e-5, rtol=1e-4)
    if bridge.host.anatomy.layer(1).mlp.shared_path is None and row != "granitemoe":  # which multiplies afterwards
        torch.testing.assert_close(made.view(*tokens().shape, -1), cache["blocks.1.mlp.hook_out"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("row", ["mixtral", "qwen3_moe", "gpt_oss"])
@torch.no_grad()
def test_each_expert_holds_what_the_native_hosts_expert_holds(row):
    _, cache = bridge_over(row).run_with_cache(tokens())
    native = HookedTransformer.from_pretrained_no_processing("native", hf_model=hf_model(row), device="cpu")
    _, expected = native.run_with_cache(tokens())
    seen = [name for name, value in expected.items() if ".experts." in name and len(value)]
    assert {name.rpartition(".")[2] for name in seen} == {"hook_gate", "hook_pre", "hook_post"}
    for name in seen:
        torch.testing.assert_close(cache[name], expected[name], atol=1e-5, rtol=1e-4)
    assert {name for name in cache if ".experts." in name and not name.endswith("hook_out")} == set(seen)


@pytest.mark.parametrize("row", ROWS)
@torch.no_grad()
def test_an_edit_moves_only_the_tokens_of_that_expert_and_nothing_is_left_behind(row):
    bridge = bridge_over(row)
    model, before = bridge.original_model, bridge(tokens())
    implementation = model.config._experts_implementation
    bridge.original_model.set_experts_implementation("eager")
    _, cache = bridge.run_with_cache(tokens())
    hidden, chosen = cache["blocks.1.hook_out"], cache["blocks.1.mlp.hook_expert_indices"]
    model.set_experts_implementation(implementation)
    expert = int(chosen[0, 0])
    moved = (chosen == expert).any(-1).view(tokens().shape)
    for part in ("gate", "pre", "post", "out"):
        name = f"{EXPERTS}{expert}.hook_{part}"
        with bridge.hooks(fwd_hooks=[(name, lambda x, hook: x + 3.0)]):
            _, edited = bridge.run_with_cache(tokens(), names_filter="blocks.1.hook_out")
        difference = (edited["blocks.1.hook_out"] - hidden).abs().amax(-1)
        assert difference[moved].min() > 1e-4, part
        assert not moved.all()
        assert difference[~moved].max() < 1e-5, part
    assert torch.equal(bridge(tokens()), before)
    assert model.config._experts_implementation == implementation
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def test_the_implementation_is_restored_when_a_hook_raises_and_kept_when_nobody_looks():
    bridge = bridge_over("mixtral")
    config, seen = bridge.original_model.config, []
    config._experts_implementation = "batched_mm"

    def fail(activation, hook):
        seen.append(config._experts_implementation)
        raise ValueError("stop")

    name = f"{EXPERTS}0.hook_post"
    with pytest.raises(ValueError, match="stop"):
        bridge.run_with_hooks(tokens(), fwd_hooks=[(name, fail)])
    assert config._experts_implementation == "batched_mm"
    bridge.run_with_hooks(
        tokens(), fwd_hooks=[("blocks.1.hook_out", lambda x, hook: seen.append(config._experts_implementation))]
    )
    assert seen == ["eager", "batched_mm"]
    with bridge.host.wired():
        assert not any(module._forward_hooks for module in bridge.original_model.modules())


@pytest.mark.parametrize("row", ["mixtral", "gpt_oss"])
def test_gradients_flow_through_what_an_expert_shows(row):
    bridge = bridge_over(row)
    _, cache = bridge.run_with_cache(tokens(), return_type="loss", incl_bwd=True)
    names = [name for name in cache if name.startswith(EXPERTS) and not name.endswith("_grad")]
    assert names
    assert all(cache[f"{name}_grad"].abs().max() > 0 for name in names)


@torch.no_grad()
def test_an_expert_that_is_given_no_token_does_not_fire():
    bridge = bridge_over("mixtral")
    forced = [("blocks.1.mlp.hook_expert_indices", lambda chosen, hook: torch.tensor([0, 2]).expand_as(chosen))]
    with bridge.hooks(fwd_hooks=forced):
        _, cache = bridge.run_with_cache(tokens(), names_filter=lambda name: name.startswith(EXPERTS))
    assert {name.removeprefix(EXPERTS)[0] for name in cache} == {"0", "2"}
    verifier = Verifier(bridge)
    result = verifier.run()
    assert result.passed
    assert not result.untrusted


@torch.no_grad()
def test_experts_that_run_unseen_are_named_and_others_have_no_hook_points():
    bridge = bridge_over("mixtral")
    experts = bridge.original_model.get_submodule(bridge.host.anatomy.layer(1).mlp.experts)
    assert stack_of(experts).parts == ("gate", "pre", "post", "out")
    assert stack_of(torch.nn.Linear(2, 2)) is None
    experts.forward = lambda hidden, indices, weights: torch.zeros_like(hidden)
    with pytest.raises(UnseenExpertsError, match=r"model.layers.1.mlp.experts ran in a way that cannot be seen"):
        bridge.run_with_hooks(tokens(), fwd_hooks=[(f"{EXPERTS}0.hook_post", lambda x, hook: None)])
