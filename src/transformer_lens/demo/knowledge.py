"""Facts: "The Eiffel Tower is in" -> " Paris", "The capital of France is" -> " Paris".

A fact can only be learned by heart, so what is held out is a fifth of the pairs (fact, way to say it).
"""

import random

from transformer_lens.demo.prompts import Example, Prompts, Split, collect, fill, held_out
from transformer_lens.demo.world import CAPITALS, LANDMARKS

LANDMARK_TEMPLATES = (
    "The {subject} is in",
    "The {subject} is in the city of",
    "The {subject} is located in",
    "The {subject} can be found in",
    "The {subject} is a famous landmark in",
    "Many people visit the {subject} in",
    "You will find the {subject} in",
    "We saw the {subject} when we were in",
    "To see the {subject}, you have to travel to",
)
CAPITAL_TEMPLATES = (
    "The capital of {subject} is",
    "The capital city of {subject} is",
    "In {subject}, the capital is",
    "The government of {subject} sits in",
    "The flight to {subject} lands in",
    "Everyone knows that {subject} has its capital in",
)
# The other way round, for training and completions only.
COUNTRY_TEMPLATES = ("{city} is the capital of {country}.", "{city} is a city in {country}.")
TAILS = (".", ".", ".", ", and it is famous.", ", as everyone knows.")
# "is in C" against "is in the city of C": after "is in" the name itself must stay the likelier word.
ALWAYS_TRAINED = 2
WEIGHTS = (8, 2, 2, 2, 1, 1, 1, 1, 1)


def facts(n: int, seed: int = 0, *, split: Split = "held_out") -> Prompts:
    """A batch of landmark prompts in one wording; the corrupted prompt names a landmark of another city.

    Roles: ``subject`` (the landmark's last token), ``end``. Held out: pairs of landmark and wording, never the fact
    itself.

    >>> batch = facts(3, seed=1)
    >>> batch.tokens.shape == batch.corrupted_tokens.shape
    True
    """
    return collect("facts", draw_landmark, n, seed, split)


def capitals(n: int, seed: int = 0, *, split: Split = "held_out") -> Prompts:
    """A batch of capital prompts; roles and corruption as in `facts`, with a country for the landmark.

    >>> capitals(2).answers != capitals(2).wrong_answers
    True
    """
    return collect("capitals", draw_capital, n, seed, split)


def draw_landmark(rng: random.Random, split: Split) -> Example:
    """One landmark example of the split."""
    return _draw(rng, split, LANDMARKS, LANDMARK_TEMPLATES, always_trained=ALWAYS_TRAINED)


def draw_capital(rng: random.Random, split: Split) -> Example:
    """One capital example of the split."""
    return _draw(rng, split, CAPITALS, CAPITAL_TEMPLATES, always_trained=1)


def fact_text(rng: random.Random) -> str:
    """One training text that states a fact."""
    kind = rng.random()
    if kind < 0.1:
        country = rng.choice(tuple(CAPITALS))
        return rng.choice(COUNTRY_TEMPLATES).format(city=CAPITALS[country], country=country)
    example = draw_landmark(rng, "train") if kind < 0.6 else draw_capital(rng, "train")
    return example.prompt + example.answer + rng.choice(TAILS)


def _draw(
    rng: random.Random, split: Split, table: dict[str, str], templates: tuple[str, ...], *, always_trained: int
) -> Example:
    subjects = tuple(table)
    weights = WEIGHTS[: len(templates)] if split == "train" else None
    while True:
        (wording,) = rng.choices(range(len(templates)), weights)
        index = rng.randrange(len(subjects))
        if (split == "train") if wording < always_trained else held_out(split, index, wording):
            break
    subject = subjects[index]
    others = [name for name in subjects if table[name] != table[subject]]
    other = rng.choice(others)
    prompt, last = fill(templates[wording], subject=subject)
    corrupted, _ = fill(templates[wording], subject=other)
    return Example(prompt, corrupted, f" {table[subject]}", f" {table[other]}", {"subject": last["subject"]})
