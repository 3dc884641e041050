"""Sampling from logits, against the distribution it should have."""

import math

import pytest
import torch

from annotations import unchecked
from transformer_lens import demo
from transformer_lens.generation.next_token import logits_to_df, sample_logits

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
PROBABILITIES = LOGITS.softmax(0)


def drawn(n=4000, tokens=None, **settings):
    """How often each token is drawn."""
    torch.manual_seed(0)
    rows = LOGITS.expand(n, -1)
    tokens = None if tokens is None else torch.tensor([tokens]).expand(n, -1)
    return sample_logits(rows, tokens=tokens, **settings).bincount(minlength=5) / n


def close(found, expected):
    return bool(((found - expected).abs() < 0.03).all())


def test_plain_and_warm():
    assert close(drawn(), PROBABILITIES)
    assert close(drawn(temperature=2.0), (LOGITS / 2).softmax(0))
    assert drawn(n=10, temperature=0.0)[0] == 1


def test_top_k_and_top_p_keep_the_likeliest():
    first_two = torch.tensor([1, 1, 0, 0, 0]) * PROBABILITIES
    expected = first_two / first_two.sum()
    assert close(drawn(top_k=2), expected)
    # The first alone has 0.64: it takes two to reach 0.7, and one is always kept.
    assert close(drawn(top_p=0.7), expected)
    assert drawn(top_p=0.01)[0] == 1
    assert close(drawn(top_p=1.0, top_k=99), PROBABILITIES)


def test_penalties():
    tokens = [0, 0, 3]
    assert close(drawn(tokens=tokens, freq_penalty=1.0), (LOGITS - torch.tensor([2, 0, 0, 1, 0])).softmax(0))
    weaker = torch.tensor([1.0, 1.0, 0.0, -2.0, -2.0])
    assert close(drawn(tokens=tokens, repetition_penalty=2.0), weaker.softmax(0))
    halved = (LOGITS / 2 - torch.tensor([2, 0, 0, 1, 0])).softmax(0)
    assert close(drawn(tokens=tokens, freq_penalty=1.0, temperature=2.0), halved)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0; it is at least 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"freq_penalty": 1.0}, r"give tokens=\[batch, pos\]"),
    ],
)
def test_errors(settings, said):
    with pytest.raises(ValueError, match=said):
        sample_logits(LOGITS[None], **settings)


def test_a_table_of_logits():
    logits = torch.zeros(3371)
    logits[[1026, 1024]] = torch.tensor([9.0, 8.0])
    table = logits_to_df(logits, demo.tokenizer(), top_k=2)
    assert table["token"].tolist() == [" cat", " dog"]
    assert table["token_id"].tolist() == [1026, 1024]
    assert math.isclose(table["prob"][0], logits.softmax(0)[1026].item(), rel_tol=1e-5)
    assert math.isclose(table["log_prob"][1], logits.log_softmax(0)[1024].item(), rel_tol=1e-5)
    assert len(logits_to_df(logits)) == 3371
    assert "token" not in logits_to_df(logits)
    with unchecked(), pytest.raises(ValueError, match=r"got shape \(1, 3371\)"):
        logits_to_df(logits[None])
