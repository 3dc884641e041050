"""Text into a HookedEncoder and out of it: one text, several, a pair."""

import berts
import pytest
import torch

from transformer_lens import BertNextSentencePrediction, HookedEncoder
from transformer_lens.errors import MissingTokenizerError

TEXTS = ["the cat", "a big dog ran"]


@pytest.fixture(scope="module")
def model():
    hf = berts.bert(vocab_size=len(berts.WORDS))
    return HookedEncoder.from_pretrained("x", hf_model=hf, tokenizer=berts.tokenizer(), device="cpu")


@pytest.fixture(scope="module")
def silent():
    return HookedEncoder({**berts.OURS, "seed": 0})


def test_texts_as_tokens(model):
    tokens, types, mask = model.to_tokens(TEXTS)
    assert tokens.tolist() == [[2, 5, 6, 3, 0, 0], [2, 9, 13, 11, 12, 3]]
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert types.tolist() == [[0] * 6, [0] * 6]
    alone, _, _ = model.to_tokens("the cat")
    assert alone.tolist() == [[2, 5, 6, 3]]
    long, _, _ = model.to_tokens("cat " * 20)
    assert (long.shape, long[0, -1]) == ((1, 12), 3)  # [SEP] stays
    assert model.to_tokens("cat " * 20, truncate=False)[0].shape == (1, 22)


@torch.no_grad()
def test_padding_of_texts_is_not_seen(model):
    both = model(TEXTS)
    torch.testing.assert_close(both[:1, :4], model("the cat"), atol=1e-5, rtol=0)
    tokens, types, mask = model.to_tokens(TEXTS)
    assert torch.equal(both, model(tokens, token_type_ids=types, one_zero_attention_mask=mask))
    given = model(TEXTS, one_zero_attention_mask=torch.ones_like(mask), token_type_ids=1 - types)
    assert (given - both).abs().max() > 1e-3


@torch.no_grad()
def test_words_in_the_place_of_masks(model):
    best = model("the [MASK] sat")[0, 2].argmax()
    word = model("the [MASK] sat", return_type="predictions")
    assert word == berts.WORDS[best]
    tokens, _, _ = model.to_tokens("the [MASK] sat")
    assert model(tokens, return_type="predictions") == model(tokens[0], "predictions") == word
    several = model(["the [MASK] sat", "[MASK] ran"], return_type="predictions")
    other = model("[MASK] ran", return_type="predictions")
    assert several == [f"Prediction 0: {word}", f"Prediction 1: {other}"]


def test_predictions_that_cannot_be(model, silent):
    with pytest.raises(ValueError, match=r"nothing to predict: no \[MASK\] is in the input"):
        model("the cat", return_type="predictions")
    with pytest.raises(MissingTokenizerError, match="tokenizer="):
        silent(berts.TOKENS, return_type="predictions")
    with pytest.raises(MissingTokenizerError, match="give token ids instead of text"):
        silent("the cat")


def test_a_tokenizer_given_later(silent):
    assert silent.tokenizer is None
    silent.tokenizer = berts.tokenizer()
    try:
        assert silent("the cat").shape == (1, 4, 31)
    finally:
        silent.tokenizer = None


# --- pairs ----------------------------------------------------------------------------------------------------------


def test_two_sentences_in_one_row(model):
    nsp = BertNextSentencePrediction(model)
    tokens, types, mask = nsp.to_tokens(TEXTS)
    assert tokens.tolist() == [[2, 5, 6, 3, 9, 13, 11, 12, 3]]
    assert types.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1]]
    assert mask.tolist() == [[1] * 9]
    cut, cut_types, _ = nsp.to_tokens(["the cat " * 9, "a dog"])
    assert (cut.shape, cut_types.sum(), cut[0, -1]) == ((1, 12), 3, 3)  # the longer sentence is cut
    assert nsp.to_tokens(["the cat " * 9, "a dog"], truncate=False)[0].shape == (1, 23)
    assert model.to_tokens("cat " * 20, truncate=False)[0].shape == (1, 22)  # the tokenizer is as it was


@torch.no_grad()
def test_whether_a_sentence_follows(model):
    nsp = BertNextSentencePrediction(model)
    tokens, types, mask = nsp.to_tokens(TEXTS)
    logits = nsp(TEXTS)
    assert logits.shape == (1, 2)
    assert torch.equal(nsp(tuple(TEXTS)), logits)
    assert torch.equal(nsp.forward(tokens, token_type_ids=types, one_zero_attention_mask=mask), logits)
    said, cache = nsp.run_with_cache(TEXTS, return_type="predictions", names_filter="nsp_head.hook_nsp_out")
    assert torch.equal(cache["nsp_head.hook_nsp_out"], logits)
    words = ["The sentences are sequential", "The sentences are NOT sequential"]
    assert said == nsp(TEXTS, "predictions") == words[int(logits.argmax())]
    for bias, answer in zip(([9.0, -9.0], [-9.0, 9.0]), words, strict=True):
        edit = [("nsp_head.hook_nsp_out", lambda x, hook, bias=bias: x + 10 * torch.tensor(bias))]
        assert nsp.run_with_hooks(TEXTS, return_type="predictions", fwd_hooks=edit) == answer
    rows = nsp(tokens.repeat(2, 1), "predictions", types.repeat(2, 1))
    assert rows == [said, said]
    assert nsp(TEXTS, return_type=None) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input": "the cat. a dog"}, r"Give two sentences: \[first, second\]"),
        ({"input": [*TEXTS, "cat"]}, r"Give two sentences"),
        ({"input": berts.TOKENS}, r"need token_type_ids \(0 for the first, 1 for the second\)"),
        ({"input": TEXTS, "token_type_ids": berts.TYPES}, "go with token ids"),
        ({"input": TEXTS, "return_type": "loss"}, '"logits", "predictions" or None'),
    ],
)
def test_questions_that_do_not_fit(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        BertNextSentencePrediction(model)(**arguments)


def test_sentences_need_a_tokenizer(silent):
    with pytest.raises(MissingTokenizerError, match="give token ids with token_type_ids"):
        BertNextSentencePrediction(silent)(TEXTS)
