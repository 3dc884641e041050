"""A sweep gives the numbers of one run for each cell, whatever the architecture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transformer_lens import HookedTransformer
from transformer_lens.patching import Intervention, LogitDifference, plan, sweep

TOY_FOLDER = Path(__file__).parents[1] / "golden" / "toy"
NAMES = sorted(path.stem for path in TOY_FOLDER.glob("*.json"))
CAUSAL = [name for name in NAMES if "bidirectional" not in name]
HOOKS = ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "attn.hook_z", "attn.hook_q", "attn.hook_v")


def toy(name):
    model = HookedTransformer(json.loads((TOY_FOLDER / f"{name}.json").read_text())["handmade"])
    model.load_state_dict(load_file(TOY_FOLDER / f"{name}.weights.safetensors"))
    return model


def tokens():
    return torch.from_numpy(np.load(TOY_FOLDER / "tokens.npy"))


def loop(model, ids, cells, metric):
    results = []
    for cell in cells:
        hooks = []
        for change in cell if isinstance(cell, list) else [cell]:

            def edit(activation, hook, change=change):
                index = change.index(change.positions(ids.shape[1]))
                activation[index] = change.new_value(activation[index], change.positions(ids.shape[1]))

            hooks.append((change.hook, edit))
        results.append(metric(model.run_with_hooks(ids, fwd_hooks=hooks)))
    return torch.stack(results).detach()


def cells_for(model, clean):
    _, cache = model.run_with_cache(clean)
    cells = []
    for layer in range(model.cfg.n_layers):
        for hook in HOOKS:
            name = f"blocks.{layer}.{hook}"
            cells += [Intervention(name, cache, pos=pos) for pos in (0, 3, -1)]
        cells += [Intervention(f"blocks.{layer}.attn.hook_z", cache, head=head) for head in range(2)]
        cells.append(Intervention(f"blocks.{layer}.attn.hook_pattern", cache, pos=5, head=1))
        cells.append(Intervention(f"blocks.{layer}.attn.hook_z", "zero", pos=[2, 5], head=1, neuron=2))
        cells.append(Intervention(f"blocks.{layer}.hook_resid_pre", lambda part: part * 0.5, pos=4))
    first, last = f"blocks.0.{HOOKS[0]}", f"blocks.{model.cfg.n_layers - 1}.attn.hook_z"
    cells.append([Intervention(first, cache, pos=6), Intervention(last, torch.tensor(0.3), pos=2, head=0)])
    cells.append([Intervention(last, cache), Intervention(first, torch.randn(9, model.cfg.d_model))])
    return cells


@pytest.mark.parametrize("name", CAUSAL)
def test_equals_the_loop(name):
    model, ids = toy(name), tokens()
    clean = ids.clone()
    clean[:, 4:] = (clean[:, 4:] + 7) % model.cfg.d_vocab
    cells = cells_for(model, clean)
    metric = lambda logits: logits[:, -1].log_softmax(-1)[:, :5].sum(-1) + logits[:, 0, 0]  # noqa: E731
    expected = loop(model, ids, cells, metric)
    torch.testing.assert_close(sweep(model, ids, cells, metric), expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(sweep(model, ids, cells, metric, max_rows=5), expected, atol=2e-4, rtol=1e-4)
    difference = LogitDifference(answer=torch.tensor([1, 2]), wrong=3)
    torch.testing.assert_close(
        sweep(model, ids, cells, difference), loop(model, ids, cells, difference), atol=2e-4, rtol=1e-4
    )


def test_left_padded_rows():
    model = HookedTransformer.from_pretrained("demo")
    ids = model.to_tokens(["The Eiffel Tower is in", "Mary gave a book to John. John thanked"], padding_side="left")
    _, cache = model.run_with_cache(ids.roll(1, 0))
    cells = [Intervention(f"blocks.{layer}.hook_resid_pre", cache, pos=pos) for layer in range(4) for pos in (5, 8, -1)]
    metric = LogitDifference(5, 6)
    torch.testing.assert_close(sweep(model, ids, cells, metric), loop(model, ids, cells, metric), atol=2e-4, rtol=1e-4)


def test_cells_that_change_nothing_are_not_run():
    model, ids = toy("05_LN_relu_standard"), tokens()
    logits, cache = model.run_with_cache(ids)
    cells = [Intervention("blocks.0.hook_resid_pre", cache, pos=2), Intervention("blocks.1.attn.hook_z", "zero", pos=7)]
    found = plan(model, ids, cells)
    assert found.unchanged == [0]
    assert found.groups == {7: [(1, 1)]}
    assert found.layer_rows == 2 * 1 * 2  # two rows, one layer, two positions
    assert found.loop_rows == 2 * 2 * 2 * 9
    assert found.layer_runs == 1
    assert "2 cells: 1 change nothing, 0 run one at a time, 1 in 1 waves of up to 2 rows" in found.describe()
    assert "1 layer evaluations on 4 tokens; a loop over cells: 4 on 72 tokens" in found.describe()
    metric = LogitDifference(1, 2)
    torch.testing.assert_close(sweep(model, ids, cells, metric)[0], metric(logits))


def test_prompts_that_differ_late_start_late():
    model, ids = toy("05_LN_relu_standard"), tokens()
    clean = ids.clone()
    clean[:, 6:] += 1
    _, cache = model.run_with_cache(clean)
    assert list(plan(model, ids, [Intervention("blocks.0.attn.hook_z", cache, head=1)]).groups) == [6]


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (Intervention("hook_embed", "zero"), "hook_embed is outside"),
        (Intervention("blocks.0.hook_resid_pre", "zero", head=1), "cannot be indexed by head"),
        (Intervention("blocks.0.hook_resid_pre", "zero", pos=9), "Position 9 is outside the 9 positions"),
        (Intervention("blocks.0.attn.hook_z", "zero", pos=[0, 2], head=[0, 3]), "can be scattered"),
        (Intervention("blocks.0.hook_resid_pre", "mean"), "A value is"),
    ],
)
def test_what_cannot_be_swept_says_so(intervention, message):
    with pytest.raises(ValueError, match=message):
        sweep(toy("05_LN_relu_standard"), tokens(), [intervention], LogitDifference(1))


def test_bidirectional_attention_is_refused():
    with pytest.raises(ValueError, match="causal"):
        sweep(toy("09_LN_gelu_bidirectional"), tokens(), [], LogitDifference(1))
