"""Sweeps over a HookedEncoder equal one hooked run for each cell, with and without padding."""

import pytest
import torch
from tests.models.berts import MASK, TOKENS, bert

from transformer_lens import HookedEncoder
from transformer_lens.patching import Intervention, LogitDifference, Sweep, get_act_patch_attn_head_out_all_pos, sweep
from transformer_lens.patching import get_act_patch_block_every as every_block

INSIDE = (
    *("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_normalized_resid_post", "hook_attn_out"),
    *("hook_mlp_in", "hook_mlp_out", "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z", "attn.hook_result"),
    *("mlp.hook_pre", "mlp.hook_post", "ln1.hook_normalized", "ln2.hook_normalized"),
)
OUTSIDE = (
    *("embed.hook_embed", "embed.hook_pos_embed", "embed.hook_token_type_embed", "hook_full_embed"),
    *("embed.ln.hook_normalized", "mlm_head.ln.hook_normalized", "unembed.hook_in"),
)
HOOKS = (*(f"blocks.{layer}.{name}" for layer in range(2) for name in INSIDE), *OUTSIDE)


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("x", hf_model=bert(), device="cpu")


def metric(logits):
    return logits[:, 1:3].log_softmax(-1)[..., 3:9].mean((1, 2)) + logits[:, 0, 4]


def clean_tokens():
    return torch.where(MASK == 1, (TOKENS + 5) % 31, 0)


@torch.no_grad()
@pytest.mark.parametrize("mask", [None, MASK], ids=["no padding", "padding"])
def test_equals_the_loop(model, mask):
    given = {} if mask is None else {"one_zero_attention_mask": mask}
    _, cache = model.run_with_cache(clean_tokens(), names_filter=list(HOOKS), **given)
    study = Sweep(model, TOKENS, [Intervention(name, cache, pos=1) for name in HOOKS], metric, attention_mask=mask)
    same = {"embed.hook_pos_embed", "embed.hook_token_type_embed"}
    assert {HOOKS[number] for number in study.plan.unchanged} == same
    assert not study.plan.looped
    found = study.run()
    for name, value in zip(HOOKS, found, strict=True):

        def put(activation, hook):
            activation[:, 1] = cache[hook.name][:, 1]

        wanted = metric(model.run_with_hooks(TOKENS, fwd_hooks=[(name, put)], **given))
        torch.testing.assert_close(value, wanted, atol=2e-5, rtol=0, msg=name)
    assert all((found[number] - study.plain_metric).abs().max() > 1e-3 for number in range(len(INSIDE)))


@torch.no_grad()
def test_layers_run_from_where_something_changes(model):
    cells = [
        Intervention("blocks.0.hook_normalized_resid_post", "zero", pos=2),
        Intervention("blocks.1.hook_resid_pre", "zero", pos=2),
        Intervention("blocks.1.hook_resid_post", "zero", pos=2),
    ]
    study = Sweep(model, TOKENS, cells, LogitDifference(5, 6, pos=2))
    assert study.plan.layer_runs == 1
    one, two, three = study.run()
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    assert (one - three).abs().max() > 1e-3


@torch.no_grad()
def test_a_function_of_your_own_runs_with_the_mask(model):
    cells = [("blocks.0.hook_attn_out", lambda x, hook: 0 * x)]
    with pytest.warns(match="one at a time"):
        found = sweep(model, TOKENS, cells, metric, attention_mask=MASK)
    wanted = model.run_with_hooks(TOKENS, fwd_hooks=cells, one_zero_attention_mask=MASK)
    torch.testing.assert_close(found[0], metric(wanted), atol=1e-5, rtol=0)


@torch.no_grad()
def test_known_sweeps(model):
    _, cache = model.run_with_cache(clean_tokens())
    assert get_act_patch_attn_head_out_all_pos(model, TOKENS, cache, lambda logits: metric(logits).mean()).shape == (
        2,
        2,
    )
    assert every_block(model, TOKENS, cache, lambda logits: metric(logits).mean()).shape == (3, 2, 7)
