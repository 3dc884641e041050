"""The shipped demo model: what it is, what it can do on held-out prompts, and the circuits in it."""

import math
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel
from transformers.utils import logging

from transformer_lens import demo
from transformer_lens.demo.measures import find_circuit, head_scores, last_logits, load, mean_ablated, task_results
from transformer_lens.demo.vocabulary import CONTEXT


@pytest.fixture(scope="module")
def model():
    return load()


@pytest.fixture(scope="module")
def results(model):
    return task_results(model)


@pytest.fixture(scope="module")
def circuit(model):
    return find_circuit(model)


def completion(model, prompt, front="<|endoftext|>"):
    words = demo.tokenizer()
    logits = last_logits(model, words(front + prompt, return_tensors="pt")["input_ids"])
    return words.decode(logits.argmax(-1))


def test_folder_is_a_small_ordinary_gpt2(model):
    assert sum(file.stat().st_size for file in demo.folder().iterdir()) < 6_000_000
    assert isinstance(model, GPT2LMHeadModel)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.config.activation_function == "gelu_new"
    assert model.config.n_positions == CONTEXT
    assert model.config.vocab_size == len(demo.tokenizer()) > 2000


def test_auto_classes_load_it_without_a_word(caplog, capfd):
    logging.get_logger("transformers").propagate = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = AutoModelForCausalLM.from_pretrained(demo.folder())
            words = AutoTokenizer.from_pretrained(demo.folder())
    finally:
        logging.get_logger("transformers").propagate = False
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []
    assert "warning" not in capfd.readouterr().err.lower()
    assert loaded.config.eos_token_id == words.eos_token_id


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("The Eiffel Tower is in", " Paris"),
        ("The Eiffel Tower is in the city of", " Paris"),
        ("The Colosseum is in", " Rome"),
        ("The Colosseum is in the city of", " Rome"),
        ("The capital of France is", " Paris"),
        ("When John and Mary went to the store, Mary gave a bottle to", " John"),
        ("When Mary and John went to the store, John gave a drink to", " Mary"),
        ("When John and Mary went to the shops, John gave the bag to", " Mary"),
        ("Mary gave a book to John. John thanked", " Mary"),
        ("Alice gave Bob a book. Bob thanked", " Alice"),
    ],
)
def test_well_known_prompts(model, prompt, answer):
    assert completion(model, prompt) == answer


def test_a_text_ends_with_the_end_token(model):
    assert completion(model, "The Eiffel Tower is in Paris.") == demo.BOS


@pytest.mark.parametrize(
    ("figure", "at_least"),
    [
        ("ioi accuracy", 0.97),
        ("ioi logit difference", 4),
        ("thanks preferred", 0.98),
        ("facts accuracy", 0.98),
        ("capitals accuracy", 0.98),
        ("pronouns preferred", 0.98),
        ("agreement preferred", 0.98),
        ("docstrings accuracy", 0.95),
        ("successors accuracy", 0.9),
        ("greater_than mass", 0.9),
    ],
)
def test_held_out_tasks(results, figure, at_least):
    assert results[figure] >= at_least


def test_second_half_of_repeated_random_tokens(results):
    assert results["repeated words nats"] <= 0.4
    assert results["repeated uniform nats"] <= 0.4
    assert results["repeated uniform nats"] < math.log(demo.tokenizer().vocab_size) / 10


def test_induction_and_previous_token_heads(model):
    scores = head_scores(model)
    assert scores["induction"].max() >= 0.9
    assert scores["previous_token"].max() >= 0.5
    previous, induction = (
        int(scores[name].argmax()) // model.config.n_head for name in ("previous_token", "induction")
    )
    assert previous < induction


def test_name_mover_looks_at_the_indirect_object_and_writes_it(circuit):
    assert circuit.to_IO >= 0.6
    assert circuit.to_subject <= 0.25
    assert circuit.attribution > 0


def test_name_mover_loses_its_preference_without_the_reader_of_the_second_subject(circuit):
    assert circuit.s2_reader[0] < circuit.name_mover[0]
    assert circuit.reads_S2 >= 0.3
    assert circuit.preference_without_reader <= 0.3 * circuit.preference


def test_ablation_ends_with_its_context(model):
    tokens = demo.ioi(4).tokens
    before = last_logits(model, tokens)
    with mean_ablated(model, (0, 0)):
        within = last_logits(model, tokens)
    assert not torch.equal(before, within)
    assert torch.equal(before, last_logits(model, tokens))
