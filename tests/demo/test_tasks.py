"""The demo tasks: repeatable, of equal length, with roles at the right tokens, and truly held out."""

import itertools
import random
import re

import pytest
import torch

from transformer_lens import demo
from transformer_lens.demo.folder import encoder
from transformer_lens.demo.grammar import draw_agreement, draw_pronoun
from transformer_lens.demo.indirect_objects import HELD_OUT_TEMPLATES, TEMPLATES, draw_ioi, draw_thanks
from transformer_lens.demo.knowledge import draw_capital, draw_landmark
from transformer_lens.demo.mixture import SHARES
from transformer_lens.demo.names import HELD_OUT_NAMES, MALE, NAMES, TRAIN_NAMES
from transformer_lens.demo.prompts import single_token
from transformer_lens.demo.series import draw_greater_than, draw_successor
from transformer_lens.demo.signatures import draw_docstring
from transformer_lens.demo.words import HELD_OUT_ARGUMENTS
from transformer_lens.demo.world import CAPITALS, LANDMARKS

TASKS = {
    task.__name__: task
    for task in (
        demo.ioi,
        demo.thanks,
        demo.facts,
        demo.capitals,
        demo.pronouns,
        demo.agreement,
        demo.docstrings,
        demo.successors,
        demo.greater_than,
        demo.repeated_tokens,
    )
}
DRAWS = {
    draw.__name__: draw
    for draw in (
        draw_ioi,
        draw_thanks,
        draw_landmark,
        draw_capital,
        draw_pronoun,
        draw_agreement,
        draw_docstring,
        draw_successor,
        draw_greater_than,
    )
}
ROLES = {
    "ioi": {"IO", "S1", "S2", "end"},
    "thanks": {"IO", "S1", "S2", "end"},
    "facts": {"subject", "end"},
    "capitals": {"subject", "end"},
    "pronouns": {"name", "end"},
    "agreement": {"noun", "distractor", "end"},
    "docstrings": {"arg1", "arg2", "arg3", "arg4", "doc1", "doc2", "end"},
    "successors": {"last", "end"},
    "greater_than": {"start", "end"},
    "repeated_tokens": {"answer", "previous", "end"},
}
every_task = pytest.mark.parametrize("name", TASKS)
every_split = pytest.mark.parametrize("split", ["train", "held_out"])


def word_at(batch, role):
    tokens = batch.tokens[torch.arange(len(batch)), batch.positions[role]]
    return demo.tokenizer().batch_decode(tokens[:, None])


@every_task
def test_same_arguments_give_the_same_batch_and_other_seeds_another(name):
    first, again, other = (TASKS[name](5, seed) for seed in (3, 3, 4))
    assert first.prompts == again.prompts
    assert first.answers == again.answers
    assert torch.equal(first.tokens, again.tokens)
    assert first.prompts != other.prompts


@every_task
@every_split
def test_tokens_are_the_prompts_with_one_bos_in_front(name, split):
    batch = TASKS[name](6, 1, split=split)
    words = demo.tokenizer()
    for texts, tokens in ((batch.prompts, batch.tokens), (batch.corrupted_prompts, batch.corrupted_tokens)):
        assert tokens.tolist() == [[words.bos_token_id, *words(text)["input_ids"]] for text in texts]
    assert batch.tokens.shape == batch.corrupted_tokens.shape
    assert len(set(batch.prompts)) == len(batch) == 6


@every_task
@every_split
def test_answers_are_single_tokens_and_differ(name, split):
    batch = TASKS[name](6, 2, split=split)
    assert demo.tokenizer().batch_decode(batch.answer_tokens[:, None]) == list(batch.answers)
    assert demo.tokenizer().batch_decode(batch.wrong_tokens[:, None]) == list(batch.wrong_answers)
    rows = torch.arange(len(batch))
    assert batch.right[rows, batch.answer_tokens].all()
    assert batch.all_wrong[rows, batch.wrong_tokens].all()
    assert not (batch.right & batch.all_wrong).any()


@every_task
def test_roles_are_those_documented_and_end_is_the_last_token(name):
    batch = TASKS[name](4, 0)
    assert set(batch.positions) == ROLES[name]
    assert (batch.positions["end"] == batch.tokens.shape[1] - 1).all()


def test_ioi_roles_point_at_the_names():
    for task, seed in itertools.product((demo.ioi, demo.thanks), range(4)):
        batch = task(8, seed)
        assert [f" {word.strip()}" for word in word_at(batch, "IO")] == list(batch.answers)
        assert word_at(batch, "S2") == list(batch.wrong_answers)
        assert [f" {word.strip()}" for word in word_at(batch, "S1")] == list(batch.wrong_answers)
        assert (batch.positions["S1"] < batch.positions["S2"]).all()


def test_ioi_mixes_both_orders_and_its_corrupted_prompts_change_s2_alone():
    batch = demo.ioi(40, 0)
    io_first = batch.positions["IO"] < batch.positions["S1"]
    assert 5 < io_first.sum() < 35
    changed = batch.tokens != batch.corrupted_tokens
    assert (changed.sum(dim=1) == 1).all()
    assert torch.equal(changed.int().argmax(dim=1), batch.positions["S2"])


def test_other_roles_point_at_their_words():
    facts = demo.facts(6, 0)
    for prompt, word in zip(facts.prompts, word_at(facts, "subject"), strict=True):
        assert any(name.endswith(word.strip()) and name in prompt for name in LANDMARKS)
    nouns = demo.agreement(6, 0)
    assert word_at(nouns, "end") == word_at(nouns, "distractor")
    methods = demo.docstrings(6, 0)
    assert word_at(methods, "arg3") == list(methods.answers)
    assert word_at(methods, "arg1") == word_at(methods, "doc1")
    assert word_at(methods, "arg2") == word_at(methods, "doc2")
    repeated = demo.repeated_tokens(6, 0, length=9)
    assert word_at(repeated, "answer") == list(repeated.answers)
    assert word_at(repeated, "previous") == word_at(repeated, "end")
    series = demo.successors(6, 0)
    for prompt, word in zip(series.prompts, word_at(series, "last"), strict=True):
        assert prompt.endswith(f"{word},")
    names = demo.pronouns(6, 0)
    for prompt, word in zip(names.prompts, word_at(names, "name"), strict=True):
        assert prompt.startswith(word)


def test_years_above_the_start_are_right_and_all_others_wrong():
    years = demo.greater_than(20, 0)
    for word, right, wrong in zip(word_at(years, "start"), years.right, years.all_wrong, strict=True):
        above = demo.tokenizer().batch_decode(right.nonzero())
        assert sorted(above) == [f"{year:02}" for year in range(int(word) + 1, 100)]
        assert len(above) + int(wrong.sum()) == 100


def test_the_corrupted_prompts_answer_is_the_wrong_one():
    where = LANDMARKS | CAPITALS
    for batch in (demo.facts(6, 0), demo.capitals(6, 0)):
        for prompt, wrong in zip(batch.corrupted_prompts, batch.wrong_answers, strict=True):
            assert any(f" {where[name]}" == wrong for name in where if name in prompt)
    names = demo.pronouns(10, 0)
    for prompt, wrong in zip(names.corrupted_prompts, names.wrong_answers, strict=True):
        assert (prompt.split()[0] in MALE) == (wrong in {" he", " him"})
    years = demo.greater_than(10, 0)
    assert all(int(wrong) > 1 for wrong in years.wrong_answers)


@pytest.mark.parametrize("name", DRAWS)
def test_held_out_prompts_are_never_drawn_for_training(name):
    trained = {DRAWS[name](random.Random(seed), "train").prompt for seed in range(6000)}
    held_out = {DRAWS[name](random.Random(seed), "held_out").prompt for seed in range(2000)}
    assert len(held_out) > 10
    assert trained.isdisjoint(held_out)


def test_held_out_words_and_wordings_never_stand_in_training_texts_of_their_task():
    assert set(HELD_OUT_NAMES) | set(TRAIN_NAMES) == set(NAMES)
    assert set(HELD_OUT_NAMES).isdisjoint(TRAIN_NAMES)
    assert set(HELD_OUT_TEMPLATES).isdisjoint(TEMPLATES)
    texts = {"ioi": [], "docstring": []}
    for document in itertools.islice(demo.documents("test"), 4000):
        if document.task in texts:
            texts[document.task].append(encoder().decode(document.ids))
    assert min(len(found) for found in texts.values()) > 100
    for text in texts["ioi"]:
        assert not set(HELD_OUT_NAMES) & set(re.findall(r"\w+", text)), text
    for text in texts["docstring"]:
        assert not set(HELD_OUT_ARGUMENTS) & set(re.findall(r"\w+", text.partition("(self,")[2].partition(")")[0])), (
            text
        )


def test_documents_keep_their_shares_and_depend_on_the_seed_alone():
    first, again, other = (list(itertools.islice(demo.documents(seed), 2000)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    spent = dict.fromkeys(SHARES, 0)
    for document in first:
        spent[document.task] += len(document.ids)
        assert len(document.ids) == len(document.weights)
    for task, tokens in spent.items():
        assert tokens / sum(spent.values()) == pytest.approx(SHARES[task] / sum(SHARES.values()), abs=0.01)


def test_repeated_tokens_repeat():
    batch = demo.repeated_tokens(3, 0, length=12)
    assert batch.tokens.shape == (3, 24)
    assert torch.equal(batch.tokens[:, 1:12], batch.tokens[:, 13:])
    assert torch.equal(batch.tokens[:, 12], batch.answer_tokens)
    assert torch.equal(batch.corrupted_tokens[:, 12], batch.wrong_tokens)


def test_what_cannot_be_had_is_refused():
    with pytest.raises(ValueError, match="n is 0"):
        demo.ioi(0)
    with pytest.raises(ValueError, match="'test'; it can be 'train' or 'held_out'"):
        demo.ioi(2, split="test")
    with pytest.raises(ValueError, match=r"facts has only \d+ distinct held_out prompts of \d+ tokens"):
        demo.facts(200)
    with pytest.raises(ValueError, match="length is 1"):
        demo.repeated_tokens(2, length=1)
    with pytest.raises(ValueError, match="' John and' is 2 tokens"):
        single_token(" John and")
