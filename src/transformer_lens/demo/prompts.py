"""Batches of prompts with right and wrong answers: the common shape of all demo tasks.

A task draws one `Example` at a time, as text. `collect` makes a batch of them: distinct rows of equal token length,
with the BOS token in front, and the token position of each role.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from transformer_lens.demo.folder import BOS, encoder

Split = Literal["train", "held_out"]
MAX_DRAWS_PER_ROW = 400


@dataclass(frozen=True)
class Example:
    """One prompt, its corrupted twin of the same token length, and their answers, as text.

    The corrupted prompt's right answer is the clean prompt's wrong one. `roles` maps a role to the index of a character
    of its word in the prompt; `end` (the last token) is implied. `right` and `all_wrong` list all right and wrong
    answers where there are several.
    """

    prompt: str
    corrupted: str
    answer: str
    wrong: str
    roles: Mapping[str, int] = field(default_factory=dict)
    right: tuple[str, ...] = ()
    all_wrong: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of prompts of equal token length, with answers; the corrupted prompt's right answer is the wrong one.

    `tokens` and `corrupted_tokens` begin with one BOS token, as ``HookedTransformer.to_tokens(prompts)`` gives them.
    `answer_tokens` and `wrong_tokens` are one token each. `right` and `all_wrong` mark every vocabulary entry that
    counts as right or wrong (one each for most tasks, many years for `greater_than`). `positions` gives, for each role,
    the index of its (last) token in each row; `end` is the last position.
    """

    task: str
    prompts: tuple[str, ...]
    corrupted_prompts: tuple[str, ...]
    answers: tuple[str, ...]
    wrong_answers: tuple[str, ...]
    tokens: Int[Tensor, "batch pos"]
    corrupted_tokens: Int[Tensor, "batch pos"]
    answer_tokens: Int[Tensor, "batch"]
    wrong_tokens: Int[Tensor, "batch"]
    right: Bool[Tensor, "batch d_vocab"]
    all_wrong: Bool[Tensor, "batch d_vocab"]
    positions: Mapping[str, Int[Tensor, "batch"]]

    def __len__(self) -> int:
        return len(self.prompts)


def generator(*parts: object) -> random.Random:
    """A random generator that depends on the parts alone (task, split, seed), the same on every machine."""
    return random.Random("/".join(str(part) for part in parts))


def fill(template: str, **words: str) -> tuple[str, dict[str, int]]:
    """The filled template, and for each field the index of the last character of its (last) filling.

    >>> fill("{A} met {B}.", A="Ann", B="Bo")
    ('Ann met Bo.', {'A': 2, 'B': 9})
    """
    text, last = "", {}
    for literal, name, _, _ in Formatter().parse(template):
        text += literal
        if name is not None:
            text += words[name]
            last[name] = len(text) - 1
    return text, last


def held_out(split: Split, *indices: int, every: int = 5) -> bool:
    """Whether a combination, given by its indices in the word lists, is of the split; one in `every` is held out."""
    check_split(split)
    mixed = sum(index * factor for index, factor in zip(indices, (1, 2, 3, 4), strict=False))
    return (mixed % every == 0) == (split == "held_out")


def check_split(split: str) -> None:
    """Raises ValueError unless the split is one of the two there are."""
    if split not in ("train", "held_out"):
        raise ValueError(f"split is {split!r}; it can be 'train' or 'held_out'")


def single_token(text: str) -> int:
    """The id of a text that is one token; ValueError if it is not."""
    ids = encoder().encode(text).ids
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens, and an answer must be one")
    return int(ids[0])


def collect(task: str, draw: Callable[[random.Random, Split], Example], n: int, seed: int, split: Split) -> Prompts:
    """A batch of n distinct examples of equal token length; the first one drawn sets the length.

    The same arguments give the same batch. Raises ValueError if n < 1 or if the task has fewer than n distinct prompts
    of that length.
    """
    check_split(split)
    if n < 1:
        raise ValueError(f"n is {n}; a batch needs at least one prompt")
    rng = generator(task, split, seed)
    length, rows = 0, dict[str, Example]()
    for _ in range(MAX_DRAWS_PER_ROW * n):
        example = draw(rng, split)
        tokens = len(encoder().encode(example.prompt).ids)
        length = length or tokens
        if tokens == length:
            rows.setdefault(example.prompt, example)
        if len(rows) == n:
            return _batch(task, list(rows.values()))
    raise ValueError(f"{task} has only {len(rows)} distinct {split} prompts of {length} tokens (seed {seed}), not {n}")


def _batch(task: str, rows: list[Example]) -> Prompts:
    clean = [encoder().encode(BOS + row.prompt) for row in rows]
    ids = torch.tensor([encoding.ids for encoding in clean])
    corrupted = torch.tensor([encoder().encode(BOS + row.corrupted).ids for row in rows])
    roles = rows[0].roles.keys() & set.intersection(*(set(row.roles) for row in rows))
    positions = {
        role: torch.tensor(
            [encoding.char_to_token(len(BOS) + row.roles[role]) for encoding, row in zip(clean, rows, strict=True)]
        )
        for role in sorted(roles)
    }
    positions["end"] = torch.full((len(rows),), ids.shape[1] - 1)
    return Prompts(
        task=task,
        prompts=tuple(row.prompt for row in rows),
        corrupted_prompts=tuple(row.corrupted for row in rows),
        answers=tuple(row.answer for row in rows),
        wrong_answers=tuple(row.wrong for row in rows),
        tokens=ids,
        corrupted_tokens=corrupted,
        answer_tokens=torch.tensor([single_token(row.answer) for row in rows]),
        wrong_tokens=torch.tensor([single_token(row.wrong) for row in rows]),
        right=_marks([row.right or (row.answer,) for row in rows]),
        all_wrong=_marks([row.all_wrong or (row.wrong,) for row in rows]),
        positions=positions,
    )


def _marks(answers: list[tuple[str, ...]]) -> Bool[Tensor, "batch d_vocab"]:
    marks = torch.zeros(len(answers), encoder().get_vocab_size(), dtype=torch.bool)
    for row, texts in enumerate(answers):
        marks[row, [single_token(text) for text in texts]] = True
    return marks
