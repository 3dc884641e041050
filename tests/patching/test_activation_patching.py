"""The usual activation patches: recorded numbers, and the numbers of one run for each patch."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from transformer_lens import HookedTransformer, patching

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = load_file(GOLDEN / "patching_gpt2.safetensors")
NAMES = sorted(name.split(".")[1] for name in RECORDED if "get_act_patch" in name)


@pytest.fixture(scope="module")
def study():
    model = HookedTransformer.from_pretrained(str(GOLDEN / "gpt2"))
    _, clean = model.run_with_cache(RECORDED["tokens"])
    return model, clean


def metric(logits):
    rows = torch.arange(len(logits))
    last = logits[:, -1]
    return (last[rows, RECORDED["metric_tokens_plus"]] - last[rows, RECORDED["metric_tokens_minus"]]).mean()


def test_the_metric_is_the_recorded_one(study):
    model, _ = study
    torch.testing.assert_close(metric(model(RECORDED["tokens"])), RECORDED["metric.clean"], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(
        metric(model(RECORDED["corrupted_tokens"])), RECORDED["metric.corrupted"], atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_recorded_patches(study, name):
    model, clean = study
    found = getattr(patching, name)(model, RECORDED["corrupted_tokens"], clean, metric)
    torch.testing.assert_close(found, RECORDED[f"patching.{name}"], atol=5e-5, rtol=1e-4)


SETTERS = {
    "resid_pre": ("resid_pre", patching.layer_pos_patch_setter, ("layer", "pos")),
    "attn_head_out_by_pos": ("z", patching.layer_pos_head_vector_patch_setter, ("layer", "pos", "head")),
    "attn_head_v_all_pos": ("v", patching.layer_head_vector_patch_setter, ("layer", "head_index")),
    "attn_head_pattern_all_pos": ("pattern", patching.layer_head_pattern_patch_setter, ("layer", "head_index")),
    "attn_head_pattern_by_pos": (
        "pattern", patching.layer_head_pos_pattern_patch_setter, ("layer", "head_index", "dest_pos"),
    ),
    "attn_head_pattern_dest_src_pos": (
        "pattern",
        patching.layer_head_dest_src_pos_pattern_patch_setter,
        ("layer", "head_index", "dest_pos", "src_pos"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SETTERS)
def test_sweeps_give_the_numbers_of_the_generic_loop(study, kind):
    model, _ = study
    name, setter, axes = SETTERS[kind]
    corrupted = RECORDED["corrupted_tokens"][:1, :6]
    _, cache = model.run_with_cache(RECORDED["tokens"][:1, :6])
    measured = lambda logits: logits[0, -1, 3] - logits[0, -1, 8]  # noqa: E731
    expected = patching.generic_activation_patch(model, corrupted, cache, measured, setter, name, axes, verbose=False)
    found = patching.activation_patch(model, corrupted, cache, measured, kind)
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-4)


def test_a_list_of_patches(study):
    model, clean = study

    frame = pd.DataFrame([[0, 2, 1], [1, 5, 3], [1, 10, 0]], columns=["layer", "pos", "head"])
    found = patching.generic_activation_patch(
        model,
        RECORDED["corrupted_tokens"],
        clean,
        metric,
        patching.layer_pos_head_vector_patch_setter,
        "z",
        index_df=frame,
        verbose=False,
    )
    torch.testing.assert_close(found, RECORDED["patching.generic(index_df)"], atol=5e-5, rtol=1e-4)


def test_what_is_wrong_is_said(study):
    model, clean = study
    corrupted = RECORDED["corrupted_tokens"]
    with pytest.raises(ValueError, match="'resid' is no kind of patch: resid_pre"):
        patching.activation_patch(model, corrupted, clean, metric, "resid")
    with pytest.raises(ValueError, match="clean one has 11 tokens, this 4"):
        patching.activation_patch(model, corrupted[:, :4], clean, metric, "attn_head_pattern_all_pos")
    with pytest.raises(ValueError, match="one number"):
        patching.activation_patch(model, corrupted, clean, lambda logits: logits[:, -1, 0], "resid_pre")
    with pytest.raises(ValueError, match="either index_axis_names or index_df"):
        patching.generic_activation_patch(model, corrupted, clean, metric, patching.layer_pos_patch_setter, "z")
    with pytest.raises(ValueError, match="'row' is no axis"):
        patching.generic_activation_patch(
            model, corrupted, clean, metric, patching.layer_pos_patch_setter, "z", ["layer", "row"]
        )


def test_patching_a_run_with_itself_changes_nothing(study):
    model, clean = study
    found = patching.activation_patch(model, RECORDED["tokens"], clean, metric, "attn_head_out_by_pos")
    torch.testing.assert_close(found, metric(model(RECORDED["tokens"])).expand(found.shape), atol=2e-5, rtol=1e-5)
