"""run_with_cache: which points, and what of them is stored."""

import pytest
import torch

from toys import CAUSAL, KINDS, TOKENS, hook_count, toy
from transformer_lens.errors import HookConflictError, UnknownNameError
from transformer_lens.hooks.names import position_axis

GATED = {"blocks.{}.attn.hook_result", "blocks.{}.hook_q_input", "blocks.{}.hook_k_input", "blocks.{}.hook_v_input",
         "blocks.{}.hook_attn_in", "blocks.{}.hook_mlp_in"}  # fmt: skip


@pytest.fixture
def model():
    return toy()


def test_caching_everything_leaves_out_what_flags_keep_off(model):
    _, cache = model.run_with_cache(TOKENS)
    gated = {name.format(layer) for name in GATED for layer in (0, 1)} | {"hook_tokens"}
    assert set(cache) == set(model.hook_dict) - gated


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("use_attn_result", ["attn.hook_result"]),
        ("use_split_qkv_input", ["hook_q_input", "hook_k_input", "hook_v_input"]),
        ("use_attn_in", ["hook_attn_in"]),
        ("use_hook_mlp_in", ["hook_mlp_in"]),
    ],
)
def test_flags_decide_what_caching_everything_stores(model, flag, names):
    plain, before = model.run_with_cache(TOKENS)
    getattr(model, f"set_{flag}")(True)
    logits, after = model.run_with_cache(TOKENS)
    assert set(after) - set(before) == {f"blocks.{layer}.{name}" for layer in (0, 1) for name in names}
    torch.testing.assert_close(logits, plain)
    getattr(model, f"set_{flag}")(False)
    assert set(model.run_with_cache(TOKENS)[1]) == set(before)


def test_hook_tokens_behind_its_flag():
    _, cache = toy(use_hook_tokens=True).run_with_cache(TOKENS)
    assert torch.equal(cache["hook_tokens"], TOKENS)
    _, cache = toy().run_with_cache(TOKENS, names_filter="embed.hook_in")
    assert torch.equal(cache["hook_tokens"], TOKENS)


@pytest.mark.parametrize("kind", ["plain", "gated_grouped", "ungrouped"])
def test_gated_points_come_by_name_with_the_numbers_of_the_flags(kind):
    names = [f"blocks.1.{name}" for name in ("attn.hook_result", "hook_q_input", "hook_k_input", "hook_v_input")]
    names.append("blocks.1.hook_mlp_in")
    model = toy(kind)
    _, by_name = model.run_with_cache(TOKENS, names_filter=names)
    flagged = toy(kind, use_attn_result=True, use_split_qkv_input=True, use_hook_mlp_in=True)
    _, by_flag = flagged.run_with_cache(TOKENS)
    assert set(by_name) == set(names)
    heads = {"hook_k_input": 2, "hook_v_input": 2} if kind == "gated_grouped" else {}
    for name in names:
        torch.testing.assert_close(by_name[name], by_flag[name])
        if not name.endswith("hook_mlp_in"):
            assert by_name[name].shape == (2, 7, heads.get(name.rsplit(".", 1)[1], 4), 16)
    _, cache = model.run_with_cache(TOKENS)
    for name in names[1:4]:
        torch.testing.assert_close(by_name[name], cache["resid_pre", 1][:, :, None].expand_as(by_name[name]))
    torch.testing.assert_close(by_name["blocks.1.hook_mlp_in"], cache["resid_mid", 1])


def test_a_name_in_the_other_spelling(model):
    _, cache = model.run_with_cache(TOKENS, names_filter=["blocks.0.attn.q.hook_out", "blocks.0.ln2.hook_in"])
    assert list(cache) == ["blocks.0.attn.hook_q", "blocks.0.hook_resid_mid"]
    assert cache["blocks.0.attn.q.hook_out"] is cache["blocks.0.attn.hook_q"]
    assert model.hook_dict["blocks.0.attn.q.hook_out"] is model.blocks[0].attn.hook_q


def test_one_point_named_twice_is_stored_once(model):
    calls = []
    model.blocks[0].attn.hook_q.register_forward_hook(lambda *_: calls.append(1))
    _, cache = model.run_with_cache(TOKENS, names_filter=["blocks.0.attn.hook_q", "blocks.0.attn.q.hook_out"])
    assert len(cache) == len(calls) == 1


def test_a_function_sees_active_points_then_gated_ones_then_the_other_spelling(model):
    def cached(accepts):
        return set(model.run_with_cache(TOKENS, names_filter=accepts)[1])

    seen = []
    cached(lambda name: seen.append(name) or True)
    assert "blocks.0.hook_attn_in" not in seen  # something active was accepted
    assert cached(lambda name: name.endswith(("hook_q", "hook_q_input"))) == {f"blocks.{i}.attn.hook_q" for i in (0, 1)}
    assert cached(lambda name: name.endswith("hook_q_input")) == {f"blocks.{i}.hook_q_input" for i in (0, 1)}
    assert cached(lambda name: name.endswith("attn.q.hook_out")) == {f"blocks.{i}.attn.hook_q" for i in (0, 1)}
    assert cached(lambda name: False) == set()


def test_an_unmatched_entry_of_a_list_is_an_error(model):
    for wrong in ("hook_q", ["hook_embed", "hook_q"]):
        with pytest.raises(UnknownNameError, match="'hook_q'"):
            model.run_with_cache(TOKENS, names_filter=wrong)
    assert hook_count(model) == 0


def test_attn_in_and_split_inputs_cannot_be_had_together(model):
    both = ["blocks.1.hook_attn_in", "blocks.1.hook_k_input"]
    with pytest.raises(HookConflictError, match="at layer 1"):
        model.run_with_cache(TOKENS, names_filter=both)
    with pytest.raises(HookConflictError, match="one input for all three"):
        model.run_with_hooks(TOKENS, fwd_hooks=[(name, lambda a, hook: None) for name in both])
    _, cache = model.run_with_cache(TOKENS, names_filter=["blocks.0.hook_attn_in", "blocks.1.hook_k_input"])
    assert len(cache) == 2  # at different layers they can
    model.set_use_attn_in(True)
    with pytest.raises(ValueError, match="not both"):
        model.set_use_split_qkv_input(True)


def test_attn_in_for_shared_keys_says_what_to_do():
    model = toy("gated_grouped")
    with pytest.raises(HookConflictError, match="set_ungroup_grouped_query_attention"):
        model.run_with_cache(TOKENS, names_filter="blocks.0.hook_attn_in")
    model.set_ungroup_grouped_query_attention(True)
    _, cache = model.run_with_cache(TOKENS, names_filter="blocks.0.hook_attn_in")
    assert cache["attn_in", 0].shape == (2, 7, 4, 16)


@pytest.mark.parametrize("kind", list(KINDS))
def test_identity_hooks_everywhere_change_nothing(kind):
    model = toy(kind)
    logits = model(TOKENS)
    for names in (lambda n: "attn_in" not in n, lambda n: n.endswith("attn_in") and kind in CAUSAL):
        hooked = [n for n in model.hook_dict if names(n)]
        if kind in ("gated_grouped", "norms_around", "sinks") and any("attn_in" in n for n in hooked):
            continue
        out = model.run_with_hooks(TOKENS, fwd_hooks=[(n, lambda a, hook: a.clone()) for n in hooked])
        torch.testing.assert_close(out, logits, atol=2e-5, rtol=2e-5)
    assert torch.equal(model(TOKENS), logits)


# --- what is stored ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "gated_grouped", "norms_around", "experts"])
@pytest.mark.parametrize("pos_slice", [2, -1, (1, 5), [0, 3], None])
def test_pos_slice_for_every_kind_of_activation(kind, pos_slice):
    model = toy(kind, use_hook_tokens=True, use_attn_result=True, use_split_qkv_input=True, use_hook_mlp_in=True)
    _, whole = model.run_with_cache(TOKENS)
    _, cache = model.run_with_cache(TOKENS, pos_slice=pos_slice)
    assert set(cache) == set(whole)
    wanted = {2: [2], -1: [6], None: list(range(7))}.get(pos_slice if not isinstance(pos_slice, list) else 99)
    wanted = wanted or (list(range(1, 5)) if isinstance(pos_slice, tuple) else pos_slice)
    for name, value in whole.items():
        axis = position_axis(name)
        if axis is not None:
            assert value.shape[axis] == 7
            value = value.index_select(axis, torch.tensor(wanted))
        assert torch.equal(cache[name], value), name


def test_pos_slice_of_scores_selects_queries(model):
    _, cache = model.run_with_cache(TOKENS, pos_slice=3)
    assert cache["pattern", 0].shape == (2, 4, 1, 7)
    assert cache["q", 0].shape == (2, 1, 4, 4)


@pytest.mark.parametrize("kind", ["plain", "experts", "norms_around"])
def test_remove_batch_dim(kind):
    model = toy(kind)
    _, whole = model.run_with_cache(TOKENS[:1])
    _, cache = model.run_with_cache(TOKENS[:1], remove_batch_dim=True)
    assert not cache.has_batch_dim
    assert cache["pattern", 0].shape == (4, 7, 7)
    for name, value in whole.items():
        flat = name.endswith(("hook_expert_weights", "hook_expert_indices")) or ".experts." in name
        flat = flat or ".q_norm." in name or ".k_norm." in name
        assert torch.equal(cache[name], value if flat else value[0]), name
    with pytest.raises(ValueError, match="batch of 1"):
        model.run_with_cache(TOKENS, remove_batch_dim=True)
    assert hook_count(model) == 0


def test_device_moves_what_is_stored_not_the_model(model):
    _, cache = model.run_with_cache(TOKENS, device="meta", names_filter="hook_embed")
    assert cache["embed"].device.type == "meta"
    assert model.W_E.device.type == "cpu"


def test_what_is_cached_is_detached_and_unchanged_by_later_edits(model):
    _, before = model.run_with_cache(TOKENS)
    store, forward, _ = model.get_caching_hooks()
    with model.hooks([*forward, ("blocks.0.hook_resid_pre", lambda a, hook: a.zero_())]):
        model(TOKENS)
    assert torch.equal(store["blocks.0.hook_resid_pre"], before["blocks.0.hook_resid_pre"])
    assert all(not value.requires_grad for value in store.values())


def test_a_plain_dict_on_request(model):
    _, cache = model.run_with_cache(TOKENS, return_cache_object=False)
    assert isinstance(cache, dict)
    assert "blocks.0.attn.hook_q" in cache


# --- gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "gated_grouped", "parallel_rotary", "alibi"])
def test_incl_bwd_stores_the_gradients_that_autograd_finds(kind):
    model = toy(kind)
    names = ["hook_embed", "blocks.0.hook_resid_pre", "blocks.0.attn.hook_k", "blocks.1.attn.hook_z",
             "blocks.1.attn.hook_pattern", "blocks.1.mlp.hook_post", "blocks.1.ln1.hook_scale",
             "blocks.0.attn.hook_result", "blocks.1.hook_resid_post"]  # fmt: skip
    loss, cache = model.run_with_cache(TOKENS, return_type="loss", names_filter=names, incl_bwd=True)
    assert set(cache) == {*names, *(f"{name}_grad" for name in names)}
    leaves = {}

    def replace(activation, hook):
        leaves[hook.name] = leaf = torch.zeros_like(activation, requires_grad=True)
        return activation + leaf

    again = model.run_with_hooks(TOKENS, return_type="loss", fwd_hooks=[(name, replace) for name in names])
    torch.testing.assert_close(loss.detach(), again.detach())
    for name, gradient in zip(leaves, torch.autograd.grad(again, list(leaves.values())), strict=True):
        torch.testing.assert_close(cache[f"{name}_grad"], gradient, atol=1e-5, rtol=1e-5)
        assert gradient.abs().max() > 0
    assert torch.equal(cache["resid_pre_grad", 0], cache["blocks.0.hook_resid_pre_grad"])


def test_incl_bwd_needs_a_scalar_that_needs_gradients(model):
    with pytest.raises(ValueError, match="scalar"):
        model.run_with_cache(TOKENS, incl_bwd=True)
    with pytest.raises(ValueError, match="stop_at_layer"):
        model.run_with_cache(TOKENS, incl_bwd=True, return_type="loss", stop_at_layer=1)
    with torch.no_grad(), pytest.raises(ValueError, match="needs gradients"):
        model.run_with_cache(TOKENS, incl_bwd=True, return_type="loss")
    assert hook_count(model) == 0


def test_gradients_are_sliced_like_activations(model):
    _, cache = model.run_with_cache(TOKENS[:1], incl_bwd=True, return_type="loss", pos_slice=2, remove_batch_dim=True)
    assert cache["blocks.0.attn.hook_q_grad"].shape == (1, 4, 4)
    assert cache["blocks.0.attn.hook_pattern_grad"].shape == (4, 1, 7)
