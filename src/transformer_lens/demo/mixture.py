"""The training texts of the demo model: documents of all tasks, mixed by their share of tokens.

Only the train split is drawn. Everything depends on the seed alone.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from transformer_lens.demo.folder import BOS, bos_id, encoder
from transformer_lens.demo.glue import glue_text
from transformer_lens.demo.grammar import agreement_text, pronoun_text
from transformer_lens.demo.indirect_objects import ioi_text
from transformer_lens.demo.knowledge import fact_text
from transformer_lens.demo.names import HELD_OUT_NAMES
from transformer_lens.demo.prompts import generator, single_token
from transformer_lens.demo.series import spaced_words, successor_text, year_text
from transformer_lens.demo.signatures import docstring_text
from transformer_lens.demo.words import HELD_OUT_ARGUMENTS

SHARES: Mapping[str, float] = {
    "ioi": 0.30,
    "induction": 0.20,
    "greater_than": 0.13,
    "glue": 0.12,
    "docstring": 0.11,
    "facts": 0.10,
    "pronoun": 0.06,
    "successor": 0.04,
    "agreement": 0.04,
}
WITHOUT_BOS = 0.1
# Periods of repeated tokens, drawn evenly on a log scale: copying is learned from the short ones.
SHORTEST, LONGEST = 3, 49
FIRST_COPY_WEIGHT = 0.1
# One token of an indirect-object sentence is what it is for; the others are slots that nothing can predict.
ANSWER_WEIGHT = 8.0


@dataclass(frozen=True)
class Document:
    """One training text as token ids, and the weight of the loss at predicting each of them.

    The first token is never predicted.
    """

    task: str
    ids: tuple[int, ...]
    weights: tuple[float, ...]


def documents(seed: object, shares: Mapping[str, float] = SHARES, *, few: bool = False) -> Iterator[Document]:
    """An endless stream of training documents in which each task keeps its share of the tokens.

    With `few`, indirect-object texts come from a few fixed wordings, with which training begins. Most documents begin
    with BOS; texts end with it, since the same token ends a text.

    >>> first = next(documents(seed=0))
    >>> len(first.ids) == len(first.weights)
    True
    """
    rng = generator("mixture", seed)
    spent = {task: rng.random() for task in shares}
    while True:
        task = min(spent, key=lambda name: spent[name] / shares[name])
        document = SPECIAL[task](rng, few) if task in SPECIAL else _document(task, rng, TEXTS[task](rng))
        spent[task] += len(document.ids)
        yield document


@cache
def _stand_ins() -> tuple[str, ...]:
    """Words that stand for names, so that the indirect object can't be guessed from a closed list of names."""
    return tuple(word.strip() for word in spaced_words() if word.strip() not in HELD_OUT_NAMES)


@cache
def _stand_in_arguments() -> tuple[str, ...]:
    return tuple(word.strip() for word in spaced_words() if word.strip() not in HELD_OUT_ARGUMENTS)


def _ioi(rng: random.Random, few: bool) -> Document:
    before, after, subject = ioi_text(rng, _stand_ins() if rng.random() < 0.5 else None, few=few)
    document = _document("ioi", rng, before + after)
    answer = len(document.ids) - len(encoder().encode(after + BOS).ids)
    again = single_token(subject)
    weights = tuple(
        ANSWER_WEIGHT if place == answer or (place > answer and index == again) else 1.0
        for place, index in enumerate(document.ids)
    )
    return Document("ioi", document.ids, weights)


def _docstring(rng: random.Random) -> str:
    return docstring_text(rng, _stand_in_arguments() if rng.random() < 0.5 else None)


TEXTS: Mapping[str, Callable[[random.Random], str]] = {
    "greater_than": year_text,
    "glue": glue_text,
    "docstring": _docstring,
    "facts": fact_text,
    "pronoun": pronoun_text,
    "successor": successor_text,
    "agreement": agreement_text,
}


def _document(task: str, rng: random.Random, text: str) -> Document:
    front = "" if rng.random() < WITHOUT_BOS else BOS
    ids = tuple(encoder().encode(front + text + BOS).ids)
    return Document(task, ids, (1.0,) * len(ids))


def _induction(rng: random.Random, few: bool) -> Document:
    """Uniform tokens of the vocabulary, two or three times over; the first copy tells little and counts little."""
    bos = bos_id()
    period, copies = int(math.exp(rng.uniform(math.log(SHORTEST), math.log(LONGEST + 1)))), rng.randint(2, 3)
    stretch = [rng.randrange(bos) for _ in range(period)]
    ids = (bos, *(stretch * copies))
    return Document("induction", ids, (0.0, *(FIRST_COPY_WEIGHT,) * period, *(1.0,) * (period * (copies - 1))))


SPECIAL: Mapping[str, Callable[[random.Random, bool], Document]] = {"ioi": _ioi, "induction": _induction}
