"""What an edit at each hook point moves, and what it does not."""

import pytest
import torch

from toys import KINDS, TOKENS, toy
from transformer_lens.hooks import reads_only

UNREAD = ("hook_expert_indices",)  # integers, edited in a test of their own


def points(model, kind):
    shared = kind in ("gated_grouped", "norms_around", "sinks")
    return [n for n in model.hook_dict if not n.endswith(UNREAD) and not (shared and n.endswith("hook_attn_in"))]


def shift(activation, hook):
    if not activation.is_floating_point():
        return (activation + 1) % 31
    return activation * 1.3 + torch.linspace(0.1, 0.5, activation.shape[-1])


def shift_in_place(activation, hook):
    activation.copy_(shift(activation, hook))


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_edit_at_each_point_moves_the_logits(kind):
    model = toy(kind, n_layers=1)
    logits = model(TOKENS)
    unmoved = []
    for name in points(model, kind):
        edited = model.run_with_hooks(TOKENS, fwd_hooks=[(name, shift)])
        if torch.allclose(edited, logits, atol=1e-5):
            unmoved.append(name)
    assert not unmoved


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_edit_in_place_acts_as_one_out_of_place_and_changes_nothing_cached(kind):
    model = toy(kind, n_layers=1)
    versions = {}

    @reads_only
    def remember(activation, hook):
        versions[hook.name] = (activation, activation.detach().clone())

    named = points(model, kind)
    for name in named:
        # NOTE: attn_in and the split inputs exclude each other.
        excluded = "_input" if name.endswith("attn_in") else "attn_in"
        others = [n for n in named if not n.endswith(excluded)]
        hooks = [(n, remember) for n in others]
        out_of_place = model.run_with_hooks(TOKENS, fwd_hooks=[*hooks, (name, shift)])
        wanted = {key: copy for key, (_, copy) in versions.items()}
        in_place = model.run_with_hooks(TOKENS, fwd_hooks=[*hooks, (name, shift_in_place)])
        assert torch.equal(in_place, out_of_place), name
        for key, (tensor, copy) in versions.items():
            assert torch.equal(tensor, copy), (name, key)
            assert torch.equal(copy, wanted[key]), (name, key)
        versions.clear()


@pytest.mark.parametrize("name", ["blocks.0.hook_resid_mid", "blocks.0.ln2.hook_in"])
@pytest.mark.parametrize("kind", ["plain", "gated_grouped", "norms_around", "experts"])
def test_resid_mid_is_the_stream(kind, name):
    model = toy(kind)
    with model.hooks([(name, lambda activation, hook: torch.zeros_like(activation))]):
        _, cache = model.run_with_cache(TOKENS)
    torch.testing.assert_close(cache["resid_post", 0], cache["mlp_out", 0])
    assert cache["resid_mid", 0].abs().max() == 0


def test_mlp_in_is_the_branch_alone():
    model = toy()
    _, before = model.run_with_cache(TOKENS)
    with model.hooks([("blocks.0.hook_mlp_in", lambda activation, hook: activation.zero_())]):
        _, after = model.run_with_cache(TOKENS)
    assert torch.equal(after["resid_mid", 0], before["resid_mid", 0])
    assert not torch.allclose(after["mlp_out", 0], before["mlp_out", 0])
    torch.testing.assert_close(after["resid_post", 0], after["resid_mid", 0] + after["mlp_out", 0])


@pytest.mark.parametrize("which", ["q", "k", "v"])
@pytest.mark.parametrize("kind", ["plain", "gated_grouped", "parallel_rotary"])
def test_one_split_input_moves_one_of_q_k_v(kind, which):
    model = toy(kind)
    names = [f"blocks.1.attn.hook_{x}" for x in "qkv"]
    _, before = model.run_with_cache(TOKENS, names_filter=names)
    with model.hooks([(f"blocks.1.hook_{which}_input", shift)]):
        _, after = model.run_with_cache(TOKENS, names_filter=names)
    moved = {x for x in "qkv" if not torch.allclose(before[x, 1], after[x, 1], atol=1e-5)}
    assert moved == {which}


def test_an_edit_of_one_heads_input_moves_that_head_alone():
    model = toy()

    def second_head(activation, hook):
        activation[:, :, 1] += 1.0 + torch.arange(16.0)

    _, before = model.run_with_cache(TOKENS, names_filter="blocks.0.attn.hook_z")
    for name in ("blocks.0.hook_attn_in", "blocks.0.hook_v_input"):
        with model.hooks([(name, second_head)]):
            _, after = model.run_with_cache(TOKENS, names_filter="blocks.0.attn.hook_z")
        moved = (after["z", 0] - before["z", 0]).abs().amax((0, 1, 3)) > 1e-5
        assert moved.tolist() == [False, True, False, False]


def test_hook_result_excludes_the_bias_and_sums_to_attn_out():
    model = toy()
    _, cache = model.run_with_cache(TOKENS, names_filter=["blocks.0.attn.hook_result", "blocks.0.hook_attn_out"])
    torch.testing.assert_close(cache["result", 0].sum(2) + model.b_O[0], cache["attn_out", 0])
    out = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.attn.hook_result", lambda a, hook: a.zero_())])
    other = model.run_with_hooks(
        TOKENS, fwd_hooks=[("blocks.0.hook_attn_out", lambda a, hook: model.b_O[0].expand_as(a))]
    )
    torch.testing.assert_close(out, other)


def test_experts_may_be_chosen_by_a_hook():
    model = toy("experts")
    first = model.run_with_hooks(
        TOKENS,
        fwd_hooks=[("blocks.0.mlp.hook_expert_indices", lambda a, hook: torch.zeros_like(a) + torch.tensor([0, 1]))],
    )
    second = model.run_with_hooks(
        TOKENS,
        fwd_hooks=[("blocks.0.mlp.hook_expert_indices", lambda a, hook: torch.zeros_like(a) + torch.tensor([0, 2]))],
    )
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("kind", list(KINDS))
def test_masked_scores_are_minus_infinity_and_rows_of_the_pattern_sum_to_one(kind):
    _, cache = toy(kind).run_with_cache(TOKENS)
    scores, pattern = cache["attn_scores", 1], cache["pattern", 1]
    future = torch.ones(7, 7).triu(1).bool()
    if kind != "bidirectional":
        assert (scores[..., future] == -torch.inf).all()
        assert (pattern[..., future] == 0).all()
    if kind != "sinks":
        torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 7))


def test_a_frozen_pattern_is_used():
    model = toy()
    uniform = torch.ones(7, 7).tril() / torch.arange(1, 8)[:, None]
    with model.hooks([("blocks.0.attn.hook_pattern", lambda a, hook: uniform.expand_as(a))]):
        _, cache = model.run_with_cache(TOKENS)
    torch.testing.assert_close(cache["z", 0], torch.einsum("qk,bkhd->bqhd", uniform, cache["v", 0]))
