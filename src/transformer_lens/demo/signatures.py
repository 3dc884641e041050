"""Docstring arguments: after two described parameters the third of the signature comes next.

After Heimersheim and Janiak 2023, "A circuit for Python docstrings in a 4-layer attention-only transformer".
"""

import random
from collections.abc import Sequence

from transformer_lens.demo.prompts import Example, Prompts, Split, collect, fill
from transformer_lens.demo.words import ARGUMENTS, HELD_OUT_ARGUMENTS, NOUNS, THINGS

TEMPLATE = '''def {function}(self, {arg1}, {arg2}, {arg3}, {arg4}):
    """{about}

    :param {doc1}: {note1}
    :param {doc2}: {note2}
    :param'''
LAST = ''' {doc3}: {note3}
    """
'''
TRAIN_ARGUMENTS = tuple(word for word in ARGUMENTS if word not in HELD_OUT_ARGUMENTS)
NOTES = tuple(NOUNS) + THINGS


def docstrings(n: int, seed: int = 0, *, split: Split = "held_out") -> Prompts:
    """A batch of docstrings of Python methods; the answer is the third argument of the signature.

    In the corrupted prompt the signature has another word there. Roles: ``arg1`` to ``arg4`` (signature), ``doc1``,
    ``doc2`` (docstring), ``end``. Held out: a fifth of the argument words.

    >>> docstrings(1).prompts[0].endswith(":param")
    True
    """
    return collect("docstrings", draw_docstring, n, seed, split)


def draw_docstring(rng: random.Random, split: Split, words: Sequence[str] | None = None) -> Example:
    """One example, with arguments from the words given or else from the split's own."""
    pool = words or (TRAIN_ARGUMENTS if split == "train" else HELD_OUT_ARGUMENTS)
    arg1, arg2, arg3, arg4, wrong = rng.sample(pool, 5)
    values = {"function": rng.choice(NOTES), "about": " ".join(rng.sample(NOTES, 3))}
    values |= {"note1": " ".join(rng.sample(NOTES, 2)), "note2": " ".join(rng.sample(NOTES, 2))}
    values |= {"arg1": arg1, "arg2": arg2, "arg4": arg4, "doc1": arg1, "doc2": arg2}
    prompt, last = fill(TEMPLATE, arg3=arg3, **values)
    corrupted, _ = fill(TEMPLATE, arg3=wrong, **values)
    roles = {role: last[role] for role in ("arg1", "arg2", "arg3", "arg4", "doc1", "doc2")}
    return Example(prompt, corrupted, f" {arg3}", f" {wrong}", roles)


def docstring_text(rng: random.Random, words: Sequence[str] | None = None) -> str:
    """One training text: a method with its whole docstring."""
    example = draw_docstring(rng, "train", words)
    note = " ".join(rng.sample(NOTES, 2))
    return example.prompt + LAST.format(doc3=example.answer.strip(), note3=note)
