"""Every family against transformers: a tiny random model, in memory and from disk, there and back again."""

import copy
import warnings

import families
import pytest
import torch
from transformers import AutoModelForCausalLM

from transformer_lens.models.hooked_transformer import HookedTransformer
from transformer_lens.weights.processing.process import ProcessingWarning

TOKENS = families.tokens()
# These take positions from a mask only if they are told to.
NEED_POSITIONS = ("gpt2", "gpt_neo", "gpt_bigcode", "biogpt", "xglm")


@pytest.fixture(scope="module", params=families.ROWS)
def row(request):
    return request.param


def unprocessed(row, hf, **options):
    return HookedTransformer.from_pretrained_no_processing(row, hf_model=hf, device="cpu", **options)


def hf_logits(hf, tokens, mask=None):
    if mask is None:
        return hf(tokens).logits
    told = {}
    if hf.config.model_type in NEED_POSITIONS:
        told = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    return hf(tokens, attention_mask=mask, **told).logits


def distance(a, b):
    return float((a.double() - b.double()).abs().max())


@torch.no_grad()
def test_logits_are_those_of_transformers(row):
    hf = families.hf_model(row)
    model = unprocessed(row, hf)
    assert distance(model(TOKENS), hf_logits(hf, TOKENS)) < 1e-5
    assert distance(model(TOKENS[:1]), hf_logits(hf, TOKENS[:1])) < 1e-5
    for padded in (slice(None, 5), slice(-5, None)):
        mask = torch.ones_like(TOKENS)
        mask[1, padded] = 0
        ours, theirs = model(TOKENS, attention_mask=mask), hf_logits(hf, TOKENS, mask)
        assert distance(ours[mask.bool()], theirs[mask.bool()]) < 1e-5


@torch.no_grad()
def test_processing_keeps_log_probabilities(row):
    hf = families.hf_model(row)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProcessingWarning)  # sinks and clipped values: see test_processing
        model = HookedTransformer.from_pretrained(row, hf_model=hf, device="cpu")
    wanted = hf_logits(hf, TOKENS).log_softmax(-1)
    assert distance(model(TOKENS).log_softmax(-1), wanted) < 1e-5
    back = model.to_hf()
    assert distance(hf_logits(back, TOKENS).log_softmax(-1), wanted) < 1e-5


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::transformer_lens.weights.processing.process.ProcessingWarning")
def test_processing_twice_is_processing_once(row):
    model = HookedTransformer.from_pretrained(row, hf_model=families.hf_model(row), device="cpu")
    once = {name: value.clone() for name, value in model.state_dict().items()}
    model.process_weights_()
    torch.testing.assert_close(dict(model.state_dict()), once, atol=1e-6, rtol=0)


@torch.no_grad()
def test_bfloat16_is_as_exact_as_transformers(row):
    hf = families.hf_model(row)
    narrow = copy.deepcopy(hf).to(torch.bfloat16)
    exact = hf_logits(hf, TOKENS)
    model = unprocessed(row, narrow, dtype=torch.bfloat16)
    # The median: where rounding moves a token to another expert, that token's error says nothing.
    ours, theirs = ((logits.float() - exact).abs().median() for logits in (model(TOKENS), hf_logits(narrow, TOKENS)))
    assert ours <= 1.5 * theirs


@torch.no_grad()
def test_unprocessed_weights_come_back_bit_for_bit_also_by_way_of_disk(row, tmp_path):
    hf = families.hf_model(row)
    model = unprocessed(row, hf)
    back = model.to_hf().state_dict()
    assert back.keys() == hf.state_dict().keys()
    for name, value in hf.state_dict().items():
        assert torch.equal(back[name], value), name
    model.save_pretrained(tmp_path)
    again = HookedTransformer.from_pretrained_no_processing(str(tmp_path), device="cpu")
    ours = model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in again.state_dict().items())
    auto = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    assert torch.equal(auto(TOKENS).logits, hf_logits(hf, TOKENS))
