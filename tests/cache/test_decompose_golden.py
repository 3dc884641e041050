"""What an earlier implementation answered for a tiny processed GPT-2 (see tests/golden/cache_analysis/README.txt)."""

import json
from pathlib import Path

import pytest
from cache_models import close
from safetensors.torch import load_file

from transformer_lens import HookedTransformer

GOLDEN = Path(__file__).parent.parent / "golden"
INDEX = json.loads((GOLDEN / "cache_analysis" / "gpt2_index.json").read_text())
RECORDED = load_file(GOLDEN / "cache_analysis" / "gpt2.safetensors")
TOKENS = RECORDED["tokens"]
CALLED_HERE = {
    "logit_attrs(all,5)": lambda c: c.logit_attrs(c.decompose_resid(), tokens=5),
    "logit_attrs(all,5,9)": lambda c: c.logit_attrs(c.decompose_resid(), tokens=5, incorrect_tokens=9),
    "logit_attrs(all,[B,S])": lambda c: c.logit_attrs(c.decompose_resid(), TOKENS, (TOKENS + 5) % 97),
    "logit_attrs(pos-1,[B])": lambda c: c.logit_attrs(
        c.decompose_resid(pos_slice=-1), TOKENS[:, -1], (TOKENS[:, -1] + 1) % 97, pos_slice=-1
    ),
    "logit_attrs(batch0)": lambda c: c.logit_attrs(c.decompose_resid(), 5, 9, batch_slice=0),
    "logit_attrs(batch0,pos-1)": lambda c: c.logit_attrs(
        c.decompose_resid(pos_slice=-1), 5, 9, batch_slice=0, pos_slice=-1
    ),
    "apply_ln_to_stack(all,layer=0)": lambda c: c.apply_ln_to_stack(c.decompose_resid(), layer=0),
    "apply_ln_to_stack(all,layer=1)": lambda c: c.apply_ln_to_stack(c.decompose_resid(), layer=1),
    "apply_ln_to_stack(all,layer=1,mlp_input=True)": lambda c: c.apply_ln_to_stack(
        c.decompose_resid(), layer=1, mlp_input=True
    ),
    "apply_ln_to_stack(all,layer=None)": lambda c: c.apply_ln_to_stack(c.decompose_resid(), layer=None),
    "apply_ln_to_stack(all,layer=-1)": lambda c: c.apply_ln_to_stack(c.decompose_resid(), layer=-1),
    "apply_ln_to_stack(all,layer=2,recompute_ln=True)": lambda c: c.apply_ln_to_stack(
        c.decompose_resid(), layer=2, recompute_ln=True
    ),
    "apply_ln_to_stack(all,layer=2,batch_slice=1)": lambda c: c.apply_ln_to_stack(
        c.decompose_resid(), layer=2, batch_slice=1
    ),
    "apply_ln_to_stack(pos-1)": lambda c: c.apply_ln_to_stack(c.decompose_resid(pos_slice=-1), layer=2, pos_slice=-1),
}
WITHOUT_BATCH = {
    "nobatch.accumulated_resid(apply_ln)": lambda c: c.accumulated_resid(apply_ln=True),
    "nobatch.decompose_resid(apply_ln)": lambda c: c.decompose_resid(apply_ln=True),
    "nobatch.logit_attrs": lambda c: c.logit_attrs(c.decompose_resid(), 5, 9, has_batch_dim=False),
}
RESULTS = ["compute_head_results.L0", "compute_head_results.L1"]


@pytest.fixture(scope="module")
def model():
    return HookedTransformer.from_pretrained(str(GOLDEN / "gpt2"), device="cpu")


@pytest.fixture(scope="module")
def cache(model):
    return model.run_with_cache(TOKENS)[1]


def argument(value):
    if isinstance(value, str) and value in RECORDED:
        return RECORDED[value]
    return tuple(value["slice"]) if isinstance(value, dict) else value


@pytest.mark.parametrize("key", INDEX)
def test_answers_and_labels_are_as_recorded(cache, key):
    entry = INDEX[key]
    arguments = {name: argument(value) for name, value in entry["arguments"].items()}
    if "labels" in entry:
        value, labels = getattr(cache, entry["method"])(**arguments, return_labels=True)
        assert labels == entry["labels"]
    else:
        value = getattr(cache, entry["method"])(**arguments)
    close(value, RECORDED[key])


@pytest.mark.parametrize("key", CALLED_HERE)
def test_stacks_are_read_as_recorded(cache, key):
    close(CALLED_HERE[key](cache), RECORDED[key])


@pytest.mark.parametrize("key", WITHOUT_BATCH)
def test_without_batch_axis_as_recorded(model, key):
    close(WITHOUT_BATCH[key](model.run_with_cache(TOKENS[:1], remove_batch_dim=True)[1]), RECORDED[key])


def test_head_results_are_as_recorded(model):
    _, cache = model.run_with_cache(TOKENS)
    cache.compute_head_results()
    for layer, key in enumerate(RESULTS):
        close(cache["result", layer], RECORDED[key])


def test_everything_recorded_is_asked_for():
    asked = {*INDEX, *CALLED_HERE, *WITHOUT_BATCH, *RESULTS, "tokens", "proj1", "proj2"}
    assert asked == set(RECORDED)
