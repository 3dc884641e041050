"""Questions with four answers: MMLU (Hendrycks et al., "Measuring Massive Multitask Language Understanding", 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from tqdm.auto import tqdm

from transformer_lens.evals.indirect_objects import tokenizer_of
from transformer_lens.extras import import_extra
from transformer_lens.text import TextCodec, TextError, Tokenizer

LETTERS = "ABCD"


class Question(TypedDict):
    """A question, its four answers, which of them is right (0 to 3), and what it is about."""

    question: str
    choices: list[str]
    answer: int
    subject: str


def make_mmlu_data_loader(
    subjects: str | Sequence[str] | None = None,
    split: str = "test",
    num_samples: int | None = None,
    *,
    dataset: Sequence[Question] | None = None,
) -> list[Question]:
    """The questions about these subjects.

    Args:
        subjects: one, several, or None: all.
        split: of the published set: "test", "validation", "dev".
        num_samples: so many of each subject at most.
        dataset: questions of your own, in place of the published set, which the hub has.

    Raises:
        TextError: there is no question about a subject.
        MissingExtraError: no dataset is given, and the `datasets` package is not installed.

    Example:
        >>> question = Question(question="2 + 2?", choices=["1", "2", "3", "4"], answer=3, subject="sums")
        >>> len(make_mmlu_data_loader("sums", dataset=[question]))
        1
    """
    if dataset is None:
        datasets = import_extra("datasets", "The published set MMLU", "transformer-lens[datasets]")
        dataset = datasets.load_dataset("cais/mmlu", "all", split=split)
    wanted = [subjects] if isinstance(subjects, str) else subjects
    chosen: dict[str, list[Question]] = {subject: [] for subject in wanted or ()}
    for item in dataset:
        if wanted is None or item["subject"] in chosen:
            group = chosen.setdefault(item["subject"], [])
            if num_samples is None or len(group) < num_samples:
                group.append(item)
    if empty := [subject for subject, group in chosen.items() if not group]:
        raise TextError(f"There is no question about {', '.join(empty)}.")
    return [question for group in chosen.values() for question in group]


@torch.no_grad()
def mmlu_eval(
    model: Any,
    tokenizer: Tokenizer | None = None,
    subjects: str | Sequence[str] | None = None,
    split: str = "test",
    num_samples: int | None = None,
    *,
    dataset: Sequence[Question] | None = None,
) -> dict[str, Any]:
    """How often the letter of the right answer is the likeliest of " A", " B", " C", " D" after "Answer:".

    No example is shown before the question. Of a question longer than n_ctx the last n_ctx tokens are read.

    Args:
        model: either host.
        tokenizer: None: the model's.
        subjects, split, num_samples, dataset: see `make_mmlu_data_loader`.

    Returns:
        "accuracy", "num_correct", "num_total", and "subject_scores": accuracy by subject.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> question = Question(question="2 + 2?", choices=["1", "2", "3", "4"], answer=3, subject="sums")
        >>> mmlu_eval(model, dataset=[question])["num_total"]
        1
    """
    codec = TextCodec(tokenizer_of(model, tokenizer))
    letters = [int(codec.to_tokens(f" {letter}", prepend_bos=False)[0, -1]) for letter in LETTERS]
    right: dict[str, list[bool]] = {}
    for question in tqdm(make_mmlu_data_loader(subjects, split, num_samples, dataset=dataset), leave=False):
        tokens = codec.to_tokens(_asked(question), prepend_bos=model.cfg.default_prepend_bos)[:, -model.cfg.n_ctx :]
        said = int(model(tokens.to(model.W_E.device))[0, -1, letters].argmax())
        right.setdefault(question["subject"], []).append(said == question["answer"])
    marks = [mark for group in right.values() for mark in group]
    return {
        "accuracy": sum(marks) / len(marks),
        "num_correct": sum(marks),
        "num_total": len(marks),
        "subject_scores": {subject: sum(group) / len(group) for subject, group in right.items()},
    }


def _asked(question: Question) -> str:
    about = question["subject"].replace("_", " ")
    choices = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, question["choices"], strict=True)]
    return "\n".join([f"A question about {about}.", "", question["question"], *choices, "Answer:"])
