"""Agreement: pronouns by the gender of a name, verbs by the number of a noun with another noun between."""

import random

from transformer_lens.demo.names import FEMALE, MALE, NAMES
from transformer_lens.demo.prompts import Example, Prompts, Split, collect, fill, held_out
from transformer_lens.demo.words import NOUNS, SINGULAR

PRONOUN_TEMPLATES = (
    ("{name} was tired because", "he", "she"),
    ("{name} went home because", "he", "she"),
    ("{name} said that", "he", "she"),
    ("{name} is a good friend, isn't", "he", "she"),
    ("{name} was hungry, so", "he", "she"),
    ("{name} opened the door, and then", "he", "she"),
    ("{name} lost the key, but later", "he", "she"),
    ("{name} was happy when", "he", "she"),
    ("{name} was late, so we waited for", "him", "her"),
    ("{name} was in the park, and we saw", "him", "her"),
)
PRONOUN_TAILS = {
    "he": (" was hungry.", " was very tired.", " slept.", " wanted to go home.", " found the book."),
    "him": (".", " and smiled.", " at the store."),
    "isn't": ("?",),
}
PREPOSITIONS = ("near", "behind", "beside", "next to", "in front of", "above", "with", "of", "to", "by")
FRONTS = ("The", "The", "Yesterday the", "We saw that the")
VERBS = ((" is", " are"), (" was", " were"), (" has", " have"))
AGREEMENT_TAILS = {
    " is": (" old.", " new.", " here.", " very small.", " red.", " ready."),
    " has": (" been lost.", " arrived.", " gone away.", " been found."),
}


def pronouns(n: int, seed: int = 0, *, split: Split = "held_out") -> Prompts:
    """A batch of "Mary went home because" -> " she"; the corrupted prompt has a name of the other gender.

    Roles: ``name``, ``end``. Held out: pairs of name and wording.

    >>> set(pronouns(8).answers) <= {" he", " she", " him", " her"}
    True
    """
    return collect("pronouns", draw_pronoun, n, seed, split)


def agreement(n: int, seed: int = 0, *, split: Split = "held_out") -> Prompts:
    """A batch of "The keys near the cabinet" -> " are"; between noun and verb stands a noun of the other number.

    In the corrupted prompt the first noun has the other number. Roles: ``noun``, ``distractor``, ``end``. Held out:
    pairs of nouns, which are never trained together.

    >>> set(agreement(8).answers) <= {" is", " are"}
    True
    """
    return collect("agreement", draw_agreement, n, seed, split)


def draw_pronoun(rng: random.Random, split: Split) -> Example:
    """One pronoun example of the split."""
    while True:
        index, wording = rng.randrange(len(NAMES)), rng.randrange(len(PRONOUN_TEMPLATES))
        if held_out(split, index, wording):
            break
    template, male, female = PRONOUN_TEMPLATES[wording]
    name = NAMES[index]
    is_male = name in MALE
    prompt, last = fill(template, name=name)
    corrupted, _ = fill(template, name=rng.choice(FEMALE if is_male else MALE))
    right, wrong = (male, female) if is_male else (female, male)
    return Example(prompt, corrupted, f" {right}", f" {wrong}", {"name": last["name"]})


def draw_agreement(rng: random.Random, split: Split, *, any_distractor: bool = False) -> Example:
    """One agreement example of the split, with a distractor of the other number unless any will do."""
    while True:
        first, second = rng.sample(range(len(SINGULAR)), 2)
        if held_out(split, first, second):
            break
    preposition = rng.choice(PREPOSITIONS)
    plural = rng.random() < 0.5
    distractor_plural = rng.random() < 0.5 if any_distractor else not plural
    forms = [(word, NOUNS[word]) for word in (SINGULAR[first], SINGULAR[second])]
    template = f"{rng.choice(FRONTS)} {{noun}} {preposition} the {{distractor}}"
    prompt, last = fill(template, noun=forms[0][plural], distractor=forms[1][distractor_plural])
    corrupted, _ = fill(template, noun=forms[0][not plural], distractor=forms[1][distractor_plural])
    singular_verb, plural_verb = VERBS[0]
    right, wrong = (plural_verb, singular_verb) if plural else (singular_verb, plural_verb)
    return Example(prompt, corrupted, right, wrong, {"noun": last["noun"], "distractor": last["distractor"]})


def pronoun_text(rng: random.Random) -> str:
    """One training text with a pronoun in it."""
    example = draw_pronoun(rng, "train")
    kind = "isn't" if "isn't" in example.prompt else "he" if example.answer in (" he", " she") else "him"
    return example.prompt + example.answer + rng.choice(PRONOUN_TAILS[kind])


def agreement_text(rng: random.Random) -> str:
    """One training text with a verb after two nouns; the verb is one of three."""
    example = draw_agreement(rng, "train", any_distractor=rng.random() < 0.4)
    singular, plural = rng.choice((VERBS[0], VERBS[0], VERBS[1], VERBS[2]))
    verb = plural if example.answer == VERBS[0][1] else singular
    return example.prompt + verb + rng.choice(AGREEMENT_TAILS[" has" if singular == " has" else " is"])
