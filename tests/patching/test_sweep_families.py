"""A sweep equals one hooked run for each cell, on every family, on both hosts, with and without padding."""

import pytest
import torch
from tests.models.families import ROWS, hf_model, tokens

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.patching import Intervention, LogitDifference, Sweep

LENGTH = 13
# Hook, how the part is named for a sweep, and how by hand.
PARTS = [
    ("hook_resid_pre", {"pos": 6}, (slice(None), 6)),
    ("hook_resid_mid", {"pos": 9}, (slice(None), 9)),
    ("hook_resid_post", {"pos": [6, 9]}, (slice(None), [6, 9])),
    ("hook_attn_out", {"pos": -1}, (slice(None), -1)),
    ("hook_mlp_out", {"pos": 7}, (slice(None), 7)),
    ("attn.hook_q", {"pos": 8, "head": 1}, (slice(None), 8, 1)),
    ("attn.hook_k", {"head": 0}, (slice(None), slice(None), 0)),
    ("attn.hook_v", {"pos": 6, "head": 0}, (slice(None), 6, 0)),
    ("attn.hook_z", {"head": 2}, (slice(None), slice(None), 2)),
    ("attn.hook_result", {"pos": 8, "head": 3}, (slice(None), 8, 3)),
    ("attn.hook_rot_q", {"pos": 8}, (slice(None), 8)),
    ("attn.hook_rot_k", {"pos": 8}, (slice(None), 8)),
    ("hook_mlp_in", {"pos": 8}, (slice(None), 8)),
]
OUTSIDE = [
    ("hook_embed", {"pos": 6}, (slice(None), 6)),
    ("ln_final.hook_normalized", {"pos": -1}, (slice(None), -1)),
    ("unembed.hook_in", {"pos": 6}, (slice(None), 6)),
]
PATTERN = ("attn.hook_pattern", {"pos": 8, "head": 2}, (slice(None), 2, 8))


def model_of(host, row):
    if host == "bridge":
        return TransformerBridge.boot_transformers(hf_model=hf_model(row))
    return HookedTransformer.from_pretrained_no_processing(row, hf_model=hf_model(row))


def metric(logits):
    return logits[:, 4:].log_softmax(-1)[..., 3:9].mean((1, 2)) + logits[:, 6, 4]


def pairs_of(model, cache, parts):
    """Cells, and the hooks that do the same by hand."""
    cells, hooks = [], []
    for name, places, index in parts:

        def put(activation, hook, name=name, index=index):
            activation[index] = cache[name][index]
            return activation

        cells.append(Intervention(name, cache, **places))
        hooks.append((name, put))
    return cells, hooks


def parts_of(model, parts):
    names = model.hook_dict
    found = [(f"blocks.{layer}.{name}", *rest) for layer in range(3) for name, *rest in parts]
    return [part for part in [*found, *OUTSIDE] if part[0] in names]


def check(model, ids, parts, **inputs):
    clean = ids.clone()
    clean[:, 5:] = tokens(len(ids)).roll(3, 1)[:, 5:]
    parts = parts_of(model, parts)
    with torch.no_grad():
        _, cache = model.run_with_cache(clean, names_filter=[name for name, *_ in parts], **inputs)
        cells, hooks = pairs_of(model, cache, parts)
        cells.append([cells[0], cells[-1]])
        looped = [model.run_with_hooks(ids, fwd_hooks=[hook], **inputs) for hook in hooks]
        looped.append(model.run_with_hooks(ids, fwd_hooks=[hooks[0], hooks[-1]], **inputs))
        for measured in (metric, LogitDifference(3, torch.arange(len(ids)) + 4)):
            study = Sweep(model, ids, cells, measured, **inputs)
            expected = torch.stack([measured(logits) for logits in looped])
            if measured is metric:
                assert (expected != study.plain_metric).any(1).all()  # no cell changes nothing
            torch.testing.assert_close(study.run(), expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)
    assert study.plain.prefix
    assert not study.plan.looped
    return study


def padded():
    """Ids of which the first row begins with padding, and their mask."""
    ids, mask = tokens(2), torch.ones(2, LENGTH, dtype=torch.long)
    ids[0, :4], mask[0, :4] = 0, 0
    return ids, mask


@pytest.mark.parametrize("host", ["native", "bridge"])
@pytest.mark.parametrize("row", ROWS)
def test_equals_the_loop(row, host):
    check(model_of(host, row), tokens(1), [*PARTS[:9], PATTERN])


QUICK = ["gpt2", "llama", "gemma2", "bloom", "mpt", "gpt_oss"]  # learned, rotary, windowed, alibi twice, sinks


@pytest.mark.parametrize("host", ["native", "bridge"])
@pytest.mark.parametrize("row", [row if row in QUICK else pytest.param(row, marks=pytest.mark.slow) for row in ROWS])
def test_equals_the_loop_under_left_padding(row, host):
    ids, mask = padded()
    check(model_of(host, row), ids, PARTS[5:], attention_mask=mask)
