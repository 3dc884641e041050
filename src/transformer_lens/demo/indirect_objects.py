"""Indirect objects: "When John and Mary went to the store, Mary gave a bottle to" -> " John".

After Wang et al. 2022, "Interpretability in the wild". Held out are a fifth of the names, together with a
fifth of the templates (pairs of an opening and an act).
"""

import random
from collections.abc import Sequence
from itertools import product

from transformer_lens.demo.glue import sentence
from transformer_lens.demo.names import HELD_OUT_NAMES, TRAIN_NAMES
from transformer_lens.demo.prompts import Example, Prompts, Split, collect, fill, held_out
from transformer_lens.demo.words import OBJECTS, PLACES

# NOTE: none begins with a name: without a space in front it is another token, which held-out names never train.
OPENINGS = (
    "When {A} and {B} went to the {place}, ",
    "After {A} and {B} went to the {place}, ",
    "Then, {A} and {B} went to the {place}, and ",
    "Then, {A} and {B} had a long talk at the {place}. ",
    "When {A} and {B} met at the {place}, ",
    "While {A} and {B} were working at the {place}, ",
    "Yesterday {A} and {B} went to the {place}, and ",
    "After the lunch, {A} and {B} went to the {place}. ",
    "When {A} and {B} were at the {place}, ",
    "The {place} was busy when {A} and {B} came in. ",
    "Then {A} met {B} at the {place}, and ",
    "Once {A} and {B} left the {place}, ",
    "Last week {A} sat next to {B} in the {place}. ",
    "Last week {A} and {B} visited the {place}, where ",
    "Yesterday {A} played with {B} near the {place}, and then ",
    "Then {A} had lunch with {B} at the {place}. Later, ",
    "Last week {A} argued with {B} at the {place}, so ",
    "Because {A} and {B} liked the {place}, ",
    "As soon as {A} and {B} reached the {place}, ",
    "Before {A} and {B} left for the {place}, ",
    "One day {A} and {B} walked to the {place}, and ",
    "While {A} and {B} were waiting at the {place}, ",
    "Then {A} and {B} stayed at the {place} until ",
)
ACTS = (
    "gave {object} to",
    "handed {object} to",
    "passed {object} to",
    "decided to give {object} to",
    "showed {object} to",
    "sold {object} to",
    "offered {object} to",
    "brought {object} to",
    "lent {object} to",
    "threw {object} to",
    "said hello to",
    "wrote a letter to",
    "bought {object} for",
)


def _templates(split: Split) -> tuple[str, ...]:
    """Every opening with every act; a fifth of these pairs is never trained."""
    pairs = product(range(len(OPENINGS)), range(len(ACTS)))
    return tuple(f"{OPENINGS[i]}{{S}} {ACTS[j]}" for i, j in pairs if held_out(split, i, j))


TEMPLATES, HELD_OUT_TEMPLATES = _templates("train"), _templates("held_out")
# A few fixed wordings, with which training begins: the head that reads the second subject is found on these.
FEW_TEMPLATES = tuple(
    f"{opening}{{S}} {ACTS[i % len(ACTS)]}" for i, opening in enumerate(OPENINGS) if held_out("train", i, i % len(ACTS))
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
    """One example, with the names given or else the split's own."""
    template = rng.choice(TEMPLATES if split == "train" else HELD_OUT_TEMPLATES)
    return _example(rng, template, names or _names(split), subject_first=rng.random() < 0.5)


def draw_thanks(rng: random.Random, split: Split, names: Sequence[str] | None = None) -> Example:
    """One example of the two-sentence kind; the receiver, named second, is the one who acts."""
    template = rng.choice(THANKS if split == "train" else HELD_OUT_THANKS)
    return _example(rng, template, names or TRAIN_NAMES, subject_first=False)


def draw_near(rng: random.Random, split: Split, names: Sequence[str] | None = None) -> Example:
    """One example that ends soon after the subject; these serve training alone."""
    return _example(rng, rng.choice(NEAR), names or _names(split), subject_first=rng.random() < 0.5)


def ioi_text(rng: random.Random, names: Sequence[str] | None = None, *, few: bool = False) -> tuple[str, str, str]:
    """One training text in two parts, the second beginning with the answer, and the subject as the text has it.

    With `few`, from a few fixed wordings.
    """
    (draw,) = rng.choices((draw_ioi, draw_near, draw_thanks), (0.5, 0.35, 0.15) if few else (0.6, 0.25, 0.15))
    if few and draw is draw_ioi:
        example = _example(rng, rng.choice(FEW_TEMPLATES), names or TRAIN_NAMES, subject_first=rng.random() < 0.5)
    else:
        example = draw(rng, "train", names)
    front = ""
    # A word that stands for a name may be known with a space in front alone, so it does not begin the text.
    if rng.random() < 0.3 or (names is not None and example.prompt.startswith(tuple(names))):
        front = sentence(rng, TRAIN_NAMES) + " "
    tail, _ = fill(rng.choice(TAILS), S=example.wrong.strip())
    return front + example.prompt, example.answer + tail, example.wrong


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
