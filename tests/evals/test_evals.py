"""Evaluations on the demo model, on both hosts, against slow answers and its own measured results."""

import math
import re
from pathlib import Path

import pytest
import torch

from transformer_lens import HookedTransformer, TransformerBridge, demo, evals
from transformer_lens.demo.indirect_objects import HELD_OUT_NAMES, HELD_OUT_TEMPLATES
from transformer_lens.errors import MissingTokenizerError
from transformer_lens.evals.answers import show_answer
from transformer_lens.evals.indirect_objects import template_of
from transformer_lens.text import SpecialTokenError, TextError

PAGE = Path(__file__).parents[2] / "docs" / "demo-model.md"
TEXTS = ["The capital of France is Paris.", "Mary was tired because she worked.", "The keys are here."] * 12


@pytest.fixture(scope="module")
def native():
    return HookedTransformer.from_pretrained("demo")


@pytest.fixture(scope="module", params=["native", "bridge"])
def model(request, native):
    return native if request.param == "native" else TransformerBridge.boot_transformers("demo")


def held_out(tokenizer, n):
    templates = [template_of(words, subject_first=first) for words in HELD_OUT_TEMPLATES for first in (True, False)]
    return evals.IOIDataset(tokenizer, templates, HELD_OUT_NAMES, num_samples=n, seed=1)


def test_indirect_objects_on_held_out_prompts_as_the_page_says(model):
    said = re.search(r"mean logit difference \| ≥ .97, ≥ 4 \| ([.\d]+), ([.\d]+) ", PAGE.read_text()).groups()
    accuracy, difference = map(float, said)
    results = evals.ioi_eval(model, held_out(model.tokenizer, 400), batch_size=100)
    # The page asks for the likeliest of all tokens, this for the likelier of the two names.
    assert results["Accuracy"] >= accuracy - 0.03
    assert abs(results["Logit Difference"] - difference) < 0.4


def test_indirect_objects_against_one_sentence_at_a_time(native):
    dataset = held_out(native.tokenizer, 12)
    differences = []
    for sample in dataset.samples:
        logits = native(sample["text"].removesuffix(sample["IO"]))[0, -1]
        io, s = (native.to_single_token(sample[role]) for role in ("IO", "S"))
        differences.append((logits[io] - logits[s]).item())
    results = evals.ioi_eval(native, dataset, batch_size=5)
    assert math.isclose(results["Logit Difference"], sum(differences) / 12, rel_tol=1e-4)
    assert results["Accuracy"] == sum(difference > 0 for difference in differences) / 12


def test_symmetric_samples_exchange_the_names():
    dataset = evals.IOIDataset(demo.tokenizer(), num_samples=6, symmetric=True, seed=0)
    assert len(dataset) == 6
    for one, other in zip(dataset.samples[::2], dataset.samples[1::2], strict=True):
        assert (one["IO"], one["S"]) == (other["S"], other["IO"])
        exchange = {one["IO"].strip(): one["S"].strip(), one["S"].strip(): one["IO"].strip()}
        words = [exchange.get(word.strip(",."), word.strip(",.")) for word in one["text"].split()]
        assert words == [word.strip(",.") for word in other["text"].split()]


def test_names_of_several_tokens_are_told_apart_where_they_differ(native):
    dataset = evals.IOIDataset(
        native.tokenizer,
        ["[B] saw [A] in the [PLACE] and [B] called [A]"],
        ["Maryx", "Maryy"],
        {"PLACE": ["garden"]},
        2,
        seed=0,
    )
    item = dataset[0]
    assert item["IO"][0] != item["S"][0]
    assert native.to_string(item["prompt"]).endswith(native.to_string(item["IO"]))
    whole = [{"prompt": item["prompt"], "IO": item["prompt"][-2:], "S": torch.cat([item["prompt"][-2:-1], item["S"]])}]
    trimmed = evals.ioi_eval(native, [item])
    assert evals.ioi_eval(native, whole) == trimmed


def test_seeds_draw_the_same_sentences_again():
    first, second, other = (evals.IOIDataset(demo.tokenizer(), num_samples=5, seed=seed).samples for seed in (3, 3, 4))
    assert first == second != other


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"templates": ["[A] gave it to [B]"]}, r"ends with ' \[A\]'"),
        ({"templates": ["[B] gave [THING] to [A]"]}, r"has \[THING\], and nouns has only LOCATION, OBJECT"),
        ({"names": ["Mary", "Mary"]}, "Two different names"),
    ],
)
def test_templates_that_cannot_be_filled(arguments, said):
    with pytest.raises(TextError, match=said):
        evals.IOIDataset(demo.tokenizer(), **arguments)


def test_loss_on_texts_is_the_mean_over_rows(model):
    loader = evals.make_wiki_data_loader(model.tokenizer, 3, dataset=TEXTS, max_length=32)
    rows = loader.dataset.tokens
    slow = torch.stack([model(row[None], return_type="loss") for row in rows]).mean().item()
    assert len(rows) % 3 != 0, "the last batch is a smaller one"
    assert math.isclose(evals.evaluate_on_dataset(model, loader), slow, rel_tol=1e-4)
    first = next(iter(evals.make_wiki_data_loader(model.tokenizer, 3, dataset=TEXTS, max_length=32)))["tokens"]
    loader = evals.make_wiki_data_loader(model.tokenizer, 3, dataset=TEXTS, max_length=32)
    assert math.isclose(
        evals.evaluate_on_dataset(model, loader, truncate=1), model(first, return_type="loss").item(), rel_tol=1e-4
    )
    with pytest.raises(TextError, match="no batch"):
        evals.evaluate_on_dataset(model, [])


@pytest.mark.parametrize("make", [evals.make_wiki_data_loader, evals.make_owt_data_loader, evals.make_pile_data_loader])
def test_text_of_ones_own_needs_no_hub(make):
    (batch,) = make(demo.tokenizer(), 99, dataset=TEXTS, max_length=32)
    assert batch["tokens"].shape[1] == 32
    again = make(demo.tokenizer(), 99, dataset=[{"text": text} for text in TEXTS], max_length=32)
    assert torch.equal(next(iter(again))["tokens"], batch["tokens"])
    (code,) = evals.make_code_data_loader(demo.tokenizer(), 99, dataset=[{"content": t} for t in TEXTS], max_length=32)
    assert torch.equal(code["tokens"], batch["tokens"])


def test_induction_loss_is_that_of_the_second_copy(model):
    assert evals.induction_loss(model, subseq_len=25) < 0.1
    assert evals.induction_loss(model, subseq_len=25, prepend_bos=False) < 1.0
    chance = HookedTransformer(
        {"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 64, "d_vocab": 50, "seed": 0, "initializer_range": 1e-3}
    )
    assert math.isclose(evals.induction_loss(chance), math.log(50), rel_tol=0.01)


def test_induction_loss_errors(native):
    with pytest.raises(TextError, match="with n_ctx=128 it is from 2 to 63"):
        evals.induction_loss(native, subseq_len=64)
    tokenizer = demo.tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(SpecialTokenError, match="prepend_bos=False"):
        evals.induction_loss(native, tokenizer)


def test_evaluate_names_its_results(model):
    results = evals.evaluate(model, datasets={"ours": TEXTS, "code": [{"content": text} for text in TEXTS]})
    assert list(results) == ["ours_loss", "code_loss", "induction_loss", "ioi_logit_difference", "ioi_accuracy"]
    assert results["ioi_accuracy"] > 0.95
    assert results["ours_loss"] == results["code_loss"] < math.log(3371)
    assert evals.sanity_check(model) < 4


def test_a_model_without_a_tokenizer_is_asked_for_one():
    toy = HookedTransformer({"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 64, "d_vocab": 50})
    with pytest.raises(MissingTokenizerError, match="pass tokenizer="):
        evals.ioi_eval(toy)


def test_answers_are_ranked(native, capsys):
    show_answer("The capital of France is", ["Paris", " Rome"], native, top_k=2)
    printed = capsys.readouterr().out
    assert "' Paris': rank 0" in printed
    logits = native("The capital of France is")[0, -1]
    rank = int((logits > logits[native.to_single_token(" Rome")]).sum())
    assert f"' Rome': rank {rank}, probability" in printed
    assert printed.count("' Paris'") == 3
    show_answer("The", "cat", native, prepend_space_to_answer=False, print_details=False)
    assert len(capsys.readouterr().out.splitlines()) == len(native.to_str_tokens("cat", prepend_bos=False))
    with pytest.raises(TextError, match="at least one token"):
        show_answer("The", "", native)


QUESTIONS = [
    evals.Question(
        question="Where is the Eiffel Tower?", choices=["Rome", "Paris", "Oslo", "Bonn"], answer=answer, subject=s
    )
    for s, answers in (("cities", [0, 1, 2, 3]), ("towers", [1]))
    for answer in answers
]


def test_multiple_choice_counts_the_likeliest_letter(model):
    results = evals.mmlu_eval(model, dataset=QUESTIONS)
    assert results["num_total"] == 5
    assert results["subject_scores"]["cities"] == 0.25, "the same question with each answer is right once"
    assert results["accuracy"] == results["num_correct"] / 5
    assert evals.mmlu_eval(model, subjects="towers", dataset=QUESTIONS)["num_total"] == 1
    assert len(evals.make_mmlu_data_loader(num_samples=2, dataset=QUESTIONS)) == 3
    with pytest.raises(TextError, match="no question about rivers"):
        evals.make_mmlu_data_loader(["rivers", "towers"], dataset=QUESTIONS)
