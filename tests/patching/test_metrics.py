"""Metrics: each against its definition, and in a sweep, where only what it reads is computed, against the loop."""

from functools import cache

import pytest
import torch
from tests.annotations import unchecked

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.patching import (
    Intervention,
    KLDivergence,
    LogitDifference,
    Loss,
    Probability,
    Rank,
    Sweep,
    sweep,
)
from transformer_lens.patching.loop import loop_cell
from transformer_lens.patching.plain_run import RunRequest


@cache
def model_of(host):
    if host == "bridge":
        return TransformerBridge.boot_transformers("demo", device="cpu")
    return HookedTransformer.from_pretrained("demo")


def texts(model):
    return model.to_tokens(["The Eiffel Tower is in", "The Colosseum is in the"])


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_each_metric_is_what_it_says():
    logits, other, labels = drawn(2, 4, 7), drawn(2, 4, 7).flip(0), torch.tensor([[1, 2, 3, 4], [5, 6, 0, 1]])
    log_probs = logits.log_softmax(-1)
    rows, answer = torch.arange(2), torch.tensor([3, 1])
    assert torch.equal(LogitDifference(3)(logits), logits[:, -1, 3])
    assert torch.equal(LogitDifference(answer, 2, pos=1)(logits), logits[rows, 1, answer] - logits[:, 1, 2])
    torch.testing.assert_close(Probability(answer)(logits), log_probs[rows, -1, answer].exp())
    torch.testing.assert_close(Probability(3, pos=0, log=True)(logits), log_probs[:, 0, 3])
    order = logits[:, -1].argsort(-1, descending=True)
    assert Rank(answer)(logits).tolist() == [(order[row] == answer[row]).nonzero().item() for row in rows]
    wanted = other[:, -1].softmax(-1)
    by_hand = (wanted * (other[:, -1].log_softmax(-1) - log_probs[:, -1])).sum(-1)
    torch.testing.assert_close(KLDivergence(other)(logits), by_hand)
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    torch.testing.assert_close(Loss(labels)(logits), losses.mean(1))
    torch.testing.assert_close(Loss(labels, pos=[2, 0])(logits), losses[:, [0, 2]].mean(1))
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    torch.testing.assert_close(Loss(labels, mask=mask)(logits), torch.stack([losses[0, 2], losses[1].mean()]))


def test_what_a_metric_cannot_read_is_said():
    with pytest.raises(ValueError, match="Position 9 is outside the 4 positions"):
        Rank(1, pos=9)(drawn(2, 4, 7))
    with pytest.raises(ValueError, match="no next token in the run"):
        Loss(torch.ones(2, 4, dtype=torch.long), pos=[-1])(drawn(2, 4, 7))


def metrics(model):
    """Built-in ones and functions, which read some logits, all, or in ways of their own."""
    ids = texts(model)
    reference = model(ids.flip(0)).detach()
    return {
        "difference": LogitDifference(torch.tensor([5, 7]), 6),
        "difference early": LogitDifference(5, pos=1),
        "probability": Probability(5),
        "rank": Rank(torch.tensor([5, 7])),
        "kl": KLDivergence(reference),
        "loss": Loss(ids),
        "some losses": Loss(ids, pos=[4, 1]),
        "last": lambda logits: logits[:, -1, 5] - logits[:, -1, 6],
        "a number": lambda logits: logits[0, -1, 5],
        "as a float": lambda logits: logits[0, 2, 5].item(),
        "slices": lambda logits: logits[:, -3:-1].log_softmax(-1)[..., 4].sum(-1),
        "backwards": lambda logits: logits[:, [5, 1, 3]][:, :, 2] @ torch.tensor([1.0, 2.0, 4.0]),
        "ellipsis": lambda logits: logits[..., 3].sum(-1),
        "rows": lambda logits: logits[1][-1, :4].max(),
        "gather": lambda logits: logits.gather(-1, ids[..., None]).sum((1, 2)),
        "by name": lambda logits: torch.nn.functional.softmax(input=logits, dim=-1)[:, -1, 5],
        "its shape": lambda logits: logits[:, logits.shape[1] - 2, logits.size(2) - 1] * len(logits),
        "in place": lambda logits: logits.sub_(1.0)[:, -1, 5],
        "ranks by mask": lambda logits: (logits[torch.tensor([True, False])] > 0).sum().float(),
    }


@pytest.mark.parametrize("host", ["native", "bridge"])
@pytest.mark.parametrize("name", metrics(model_of("native")))
def test_sweeps_measure_what_the_loop_does(host, name):
    model = model_of(host)
    ids, metric = texts(model), metrics(model)[name]
    _, clean = model.run_with_cache(ids.roll(1, 0))
    cells = [Intervention(f"blocks.{layer}.hook_resid_pre", clean, pos=pos) for layer in (1, 3) for pos in (2, 4, -1)]
    cells.append(Intervention("ln_final.hook_normalized", 0.5, neuron=3))
    request = RunRequest(ids, None, [])
    with torch.no_grad():
        expected = torch.stack([loop_cell(model, request, cell, metric) for cell in cells])
    for options in ({}, {"memory": 1}, {"max_rows": 6}):
        torch.testing.assert_close(sweep(model, ids, cells, metric, **options), expected, atol=3e-4, rtol=3e-4)


def test_functions_that_take_the_last_position_compute_no_other():
    model = model_of("native")
    ids = texts(model)
    cells = [Intervention("blocks.1.hook_resid_pre", 0.1, pos=1)] * 3
    for metric, positions in (
        (lambda logits: logits[:, -1, 5], 1),
        (lambda logits: logits.mean((1, 2)), ids.shape[1] - 1),
    ):
        study = Sweep(model, ids, cells, metric)
        seen = []
        with model.hooks([("unembed.hook_in", lambda x, hook, seen=seen: seen.append(x.shape[:2]))]):
            study.run()
        assert seen == [(6, positions)]


@pytest.mark.parametrize("kind", [LogitDifference, Probability, Rank])
@pytest.mark.parametrize(
    ("token", "error", "message"),
    [
        (99, ValueError, "Token 99 is outside the vocabulary of 9"),
        (torch.tensor([1, -1]), ValueError, "Token -1 is outside"),
        (torch.tensor([1, 2, 3]), ValueError, r"one for each of the 2 rows; got shape \(3,\)"),
        (" Paris", TypeError, r"token ids; got ' Paris'. model.to_single_token\(' Paris'\)"),
    ],
)
def test_what_is_no_token_of_a_row_is_refused(kind, token, error, message):
    with unchecked(), pytest.raises(error, match=message):
        kind(token)(torch.zeros(2, 3, 9))
