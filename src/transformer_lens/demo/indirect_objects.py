"""Indirect objects: "When John and Mary went to the store, Mary gave a bottle to" -> " John".

After Wang et al. 2022, "Interpretability in the wild". Held out are a fifth of the names and five templates, together.
"""

import random
from collections.abc import Sequence

from transformer_lens.demo.names import HELD_OUT_NAMES, TRAIN_NAMES
from transformer_lens.demo.prompts import Example, Prompts, Split, collect, fill
from transformer_lens.demo.words import OBJECTS, PLACES

TEMPLATES = (
    "When {A} and {B} went to the {place}, {S} gave {object} to",
    "After {A} and {B} went to the {place}, {S} gave {object} to",
    "Then, {A} and {B} went to the {place}, and {S} gave {object} to",
    "Then, {A} and {B} had a long talk at the {place}. {S} passed {object} to",
    "When {A} and {B} got {object} at the {place}, {S} decided to give it to",
    "While {A} and {B} were working at the {place}, {S} gave {object} to",
    "{A} and {B} went to the {place}, and {S} handed {object} to",
    "After the lunch, {A} and {B} went to the {place}. {S} gave {object} to",
    "When {A} and {B} were at the {place}, {S} showed {object} to",
    "The {place} was busy when {A} and {B} came in. {S} sold {object} to",
    "{A} met {B} at the {place}, and {S} offered {object} to",
    "Once {A} and {B} left the {place}, {S} brought {object} to",
    "{A} sat next to {B} in the {place}. {S} lent {object} to",
    "Last week {A} and {B} visited the {place}, where {S} gave {object} to",
    "{A} played with {B} near the {place}, and then {S} threw {object} to",
    "{A} had lunch with {B}. Later, {S} said hello to",
    "{A} argued with {B} at the {place}, so {S} wrote a letter to",
    "Because {A} and {B} liked the {place}, {S} bought {object} for",
)
HELD_OUT_TEMPLATES = (
    "As soon as {A} and {B} reached the {place}, {S} gave {object} to",
    "Before {A} and {B} left for the {place}, {S} handed {object} to",
    "One day {A} and {B} walked to the {place}, and {S} gave {object} to",
    "While {A} and {B} were waiting at the {place}, {S} passed {object} to",
    "{A} and {B} stayed at the {place} until {S} showed {object} to",
)
# The subject stands at the very end, where one look back finds it: the easy cases come first in learning.
NEAR = (
    "{A} and {B} were at the {place}. {S} called",
    "The {place} was quiet. {A} and {B} were there, and {S} followed",
    "Then {A} and {B} went to the {place}, where {S} met",
    "When {A} and {B} left the {place}, {S} helped",
    "Last week {A} saw {B} at the {place}. {S} liked",
    "After {A} and {B} met at the {place}, {S} waited for",
    "{A} and {B} went to the {place}, and {S} talked to",
    "Yesterday {A} and {B} were at the {place}, and {S} spoke to",
    "When {A} and {B} came home, {S} smiled at",
    "Then {A} and {B} came to the {place}. {S} threw {object} at",
)
# One name gives, the other answers: the same rule in two short sentences.
THANKS = (
    "{A} gave {object} to {B}. {S} thanked",
    "{A} gave {B} {object}. {S} thanked",
    "{A} lent {object} to {B}. Later, {S} gave it back to",
    "{A} showed {object} to {B}, and {S} smiled at",
    "{A} helped {B} at the {place}. {S} thanked",
)
HELD_OUT_THANKS = (
    "{A} brought {object} to {B}. {S} thanked",
    "{A} sold {B} {object}. Later, {S} thanked",
)
DISTRACTORS = (
    "The weather was {adjective}. ",
    "{C} was at home. ",
    "{C} was {adjective}. ",
    "It was a {adjective} day. ",
    "The {place} was {adjective}. ",
    "{C} stayed at the {place}. ",
)
# Half of the ends name the subject again: it gives a reason to look back at who acts.
TAILS = (
    ".",
    ".",
    " and left.",
    " and smiled.",
    ", and {S} left.",
    ", and {S} went home.",
    ". {S} smiled.",
    ", so {S} left.",
)


def ioi(n: int, seed: int = 0, *, split: Split = "held_out") -> Prompts:
    """A batch of indirect-object prompts, both name orders (ABBA and BABA) mixed.

    Roles: ``IO`` (the answer), ``S1`` and ``S2`` (the repeated subject), ``end``. In the corrupted prompt S2 is the
    other name, so that the answers change places. Held out: names and templates. Raises ValueError if there are not n
    such prompts.

    >>> batch = ioi(4, seed=0)
    >>> tuple(batch.tokens.shape) == tuple(batch.corrupted_tokens.shape)
    True
    """
    return collect("ioi", draw_ioi, n, seed, split)


def thanks(n: int, seed: int = 0, *, split: Split = "held_out") -> Prompts:
    """A batch of "Mary gave a book to John. John thanked" -> " Mary"; roles and corruption as in `ioi`.

    >>> thanks(2, split="train").positions.keys() >= {"IO", "S1", "S2", "end"}
    True
    """
    return collect("thanks", draw_thanks, n, seed, split)


def draw_ioi(rng: random.Random, split: Split, names: Sequence[str] | None = None) -> Example:
    """One example, with names from the list given or else from the split's own."""
    template = rng.choice(TEMPLATES if split == "train" else HELD_OUT_TEMPLATES)
    return _example(rng, template, names or _names(split), subject_first=rng.random() < 0.5)


def draw_thanks(rng: random.Random, split: Split, names: Sequence[str] | None = None) -> Example:
    """One example of the two-sentence kind; the receiver, named second, is the one who acts."""
    template = rng.choice(THANKS if split == "train" else HELD_OUT_THANKS)
    return _example(rng, template, names or _names(split), subject_first=False)


def draw_near(rng: random.Random, split: Split, names: Sequence[str] | None = None) -> Example:
    """One example that ends soon after the subject; these serve training alone."""
    return _example(rng, rng.choice(NEAR), names or _names(split), subject_first=rng.random() < 0.5)


def ioi_text(rng: random.Random, names: Sequence[str] | None = None) -> tuple[str, str, str]:
    """One training text in two parts, the second beginning with the answer, and the subject as the text has it."""
    (draw,) = rng.choices((draw_ioi, draw_near, draw_thanks), (0.5, 0.35, 0.15))
    example = draw(rng, "train", names)
    front = ""
    # A word that stands for a name may be known with a space in front alone, so it does not begin the text.
    if rng.random() < 0.25 or (names is not None and example.prompt.startswith(tuple(names))):
        words = {"C": rng.choice(TRAIN_NAMES), "place": rng.choice(PLACES), "adjective": rng.choice(MOODS)}
        front = fill(rng.choice(DISTRACTORS), **words)[0]
    tail, _ = fill(rng.choice(TAILS), S=example.wrong.strip())
    return front + example.prompt, example.answer + tail, example.wrong


MOODS = ("quiet", "busy", "cold", "warm", "happy", "sad", "tired", "hungry", "bright", "strange")


def _names(split: Split) -> tuple[str, ...]:
    return TRAIN_NAMES if split == "train" else HELD_OUT_NAMES


def _example(rng: random.Random, template: str, names: Sequence[str], *, subject_first: bool) -> Example:
    first, second = rng.sample(names, 2)
    place, thing = rng.choice(PLACES), rng.choice(OBJECTS)
    subject, other = (first, second) if subject_first else (second, first)
    words = {"A": first, "B": second, "place": place, "object": thing}
    prompt, last = fill(template, S=subject, **words)
    corrupted, _ = fill(template, S=other, **words)
    s1, io = ("A", "B") if subject_first else ("B", "A")
    roles = {"IO": last[io], "S1": last[s1], "S2": last["S"]}
    return Example(prompt, corrupted, f" {other}", f" {subject}", roles)
