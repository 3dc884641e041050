"""Order: years that must be greater, days and months and numbers that follow, random tokens that come again."""

import random
from functools import cache

from transformer_lens.demo.folder import encoder
from transformer_lens.demo.prompts import Example, Prompts, Split, collect, fill, held_out
from transformer_lens.demo.words import CYCLIC, EVENTS, SERIES

YEAR_TEMPLATES = (
    "The {event} lasted from the year {start} to the year {century}",
    "The {event} began in {start} and ended in {century}",
    "The {event} went on from {start} until {century}",
    "Between {start} and {century}",
)
CENTURIES = (11, 12, 13, 14, 15, 16, 17, 18, 19)
EARLIEST, LATEST = 2, 98
YEAR_TAILS = (".", ".", ", and then it was over.")
REPEATED_LENGTH = 25


def greater_than(n: int, seed: int = 0, *, split: Split = "held_out") -> Prompts:
    """A batch of "The war lasted from the year 1732 to the year 17" -> any two digits above 32.

    After Hanna et al. 2023, "How does GPT-2 compute greater-than?". `right` marks all years above the start,
    `all_wrong` those from 00 up to and with it. The corrupted prompt starts in year 01 of the century, as in the paper.
    Roles: ``start`` (the two digits to beat), ``end``. Held out: pairs of event and starting year.

    >>> int(greater_than(1).right.sum() + greater_than(1).all_wrong.sum())
    100
    """
    return collect("greater_than", draw_greater_than, n, seed, split)


def successors(n: int, seed: int = 0, *, split: Split = "held_out") -> Prompts:
    """A batch of "Monday, Tuesday, Wednesday," -> " Thursday"; the corrupted prompt starts later in the same series.

    Series: days, months, numbers, ordinals, letters, digits. Roles: ``last`` (the word before), ``end``. Held out:
    pairs of starting point and length.

    >>> len(successors(5).prompts)
    5
    """
    return collect("successors", draw_successor, n, seed, split)


def repeated_tokens(n: int, seed: int = 0, *, length: int = REPEATED_LENGTH, split: Split = "held_out") -> Prompts:
    """A batch of `length` random words, and the same again but for the last one, which is the answer.

    In the corrupted prompt the answer's first appearance is another word. Roles: ``answer`` (its first appearance),
    ``previous`` (the token before it), ``end``. The whole second half, from position `length` + 1, can be predicted
    from the first. Nothing is shared between splits but the words.

    >>> repeated_tokens(2, length=10).tokens.shape
    torch.Size([2, 20])
    """

    def draw(rng: random.Random, split: Split) -> Example:
        return draw_repeated(rng, length)

    return collect(f"repeated_tokens/{length}", draw, n, seed, split)


def draw_greater_than(rng: random.Random, split: Split) -> Example:
    """One example about an event; the century-only wording serves training."""
    while True:
        wording, event = rng.randrange(len(YEAR_TEMPLATES) - 1), rng.randrange(len(EVENTS))
        century, start = rng.choice(CENTURIES), rng.randint(EARLIEST, LATEST)
        if held_out(split, event, start + century):
            break
    words = {"event": EVENTS[event], "century": str(century)}
    prompt, last = fill(YEAR_TEMPLATES[wording], start=f"{century}{start:02}", **words)
    corrupted, _ = fill(YEAR_TEMPLATES[wording], start=f"{century}01", **words)
    years = [f"{year:02}" for year in range(100)]
    right, wrong = tuple(years[start + 1 :]), tuple(years[: start + 1])
    return Example(prompt, corrupted, rng.choice(right), rng.choice(wrong[2:]), {"start": last["start"]}, right, wrong)


def draw_successor(rng: random.Random, split: Split) -> Example:
    """One stretch of a series, without its last word."""
    while True:
        name = rng.choice(tuple(SERIES))
        series = SERIES[name]
        length, start = rng.randint(2, 5), rng.randrange(len(series))
        shift = rng.randint(1, 3)
        fits = name in CYCLIC or start + length + shift < len(series)
        if fits and held_out(split, start, length):
            break
    clean = [series[(start + step) % len(series)] for step in range(length + 1)]
    moved = [series[(start + shift + step) % len(series)] for step in range(length + 1)]
    prompt = ", ".join(clean[:-1]) + ","
    corrupted = ", ".join(moved[:-1]) + ","
    return Example(prompt, corrupted, f" {clean[-1]}", f" {moved[-1]}", {"last": len(prompt) - 2})


def draw_repeated(rng: random.Random, length: int) -> Example:
    """Random words twice, without the last word."""
    if length < 2:
        raise ValueError(f"length is {length}; a repeated stretch needs at least 2 tokens")
    words = rng.sample(spaced_words(), length + 1)
    wrong, once = words[-1], words[:-1]
    first = "".join(once)
    again = "".join(once[:-1])
    roles = {"answer": len(first) - 1, "previous": len(again) - 1}
    return Example(first + again, again + wrong + again, once[-1], wrong, roles)


@cache
def spaced_words() -> tuple[str, ...]:
    """All words of the vocabulary with a space in front that are letters; any order of them keeps its tokens."""
    tokens = (token[1:] for token in encoder().get_vocab() if token.startswith("Ġ"))
    return tuple(f" {word}" for word in sorted(tokens) if word.isascii() and word.isalpha())


def year_text(rng: random.Random) -> str:
    """One training text with years: an event with its end, or a sorted list, which teaches the order of all pairs."""
    century = rng.choice(CENTURIES)
    if rng.random() < 0.33:
        years = sorted(rng.sample(range(100), rng.randint(4, 9)))
        return ", ".join(f"{century}{year:02}" for year in years)
    if rng.random() < 0.1:
        start = rng.randint(0, LATEST)
        text, _ = fill(YEAR_TEMPLATES[-1], start=f"{century}{start:02}", century=str(century))
        return f"{text}{rng.randint(start + 1, 99):02}, the town grew."
    example = draw_greater_than(rng, "train")
    return example.prompt + example.answer + rng.choice(YEAR_TAILS)


def successor_text(rng: random.Random) -> str:
    """One training text that goes through a part of a series."""
    example = draw_successor(rng, "train")
    return example.prompt + example.answer
