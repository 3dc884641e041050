"""Plain sentences that belong to no task, so that the model has heard ordinary words in ordinary order."""

import random
from collections.abc import Sequence
from string import Formatter

from transformer_lens.demo.names import NAMES
from transformer_lens.demo.words import (
    ACTIONS,
    ADJECTIVES,
    ANIMALS,
    JOBS,
    NOUNS,
    PLACES,
    SERIES,
    THINGS,
    WEATHER,
)
from transformer_lens.demo.world import CAPITALS, LANDMARKS

SENTENCES = (
    "The {adjective} {animal} {action} near the {place}.",
    "The {adjective} {job} {action} in the {place}.",
    "{name} {action} in the {place}.",
    "{name} is a {job}.",
    "{name} lives in {city}.",
    "{name} comes from {country}.",
    "{name} bought a {adjective} {thing}.",
    "The {thing} was on the {noun}.",
    "There was a {adjective} {thing} in the {place}.",
    "On {day} we went to the {place}.",
    "In {month} there is a lot of {weather}.",
    "The {weather} was strong in {city}.",
    "I like the {adjective} {thing}.",
    "My name is {name}.",
    "{who} is here, and I like {who}.",
    "{who} lives in {city}. I met {who} in {month}.",
    "{who} is my friend. {who} is a {job}.",
    "Do you know {who}? Yes, I know {who}.",
    "My friend {name} is {adjective}.",
    "The {job} picked up the {thing} and {action}.",
    "We travelled from {city} to {city}.",
    "They live in {country}, and they like it.",
    "The {animal} is {adjective}, but the {animal} is not.",
    "She wrote a {thing} and read it to the {job}.",
    "He sold the {thing} to the {job}.",
    "It was {adjective} and {adjective} in the {place}.",
    "Do you know the {job}?",
    "Yes, I know the {adjective} {job}.",
    "The {adjective} {noun} is made of {material}.",
    "Once upon a time there was a {adjective} {animal}.",
    "Hello, {name}!",
    "Hello, world!",
    "The people of {city} are {adjective}.",
    "I have {number} {adjective} {nouns}.",
)
MATERIALS = ("wood", "stone", "glass", "gold", "iron", "paper")
# Sentences that tutorials like to quote.
FIXED = (
    "The quick brown fox jumps over the lazy dog.",
    "The cat sat on the mat.",
    "Roses are red, violets are blue.",
    "Once upon a time there was a king.",
    "The robot picked up the wrench and tightened the bolt.",
    "All that glitters is not gold.",
    "To be or not to be, that is the question.",
    "My favourite colour is blue.",
    "The sky is blue and the grass is green.",
)
FILLINGS: dict[str, Sequence[str]] = {
    "adjective": ADJECTIVES,
    "animal": ANIMALS,
    "job": JOBS,
    "thing": THINGS,
    "place": PLACES,
    "action": ACTIONS,
    "weather": WEATHER,
    "city": tuple(dict.fromkeys((*LANDMARKS.values(), *CAPITALS.values()))),
    "country": tuple(CAPITALS),
    "noun": tuple(NOUNS),
    "nouns": tuple(NOUNS.values()),
    "day": SERIES["days"],
    "month": SERIES["months"],
    "number": SERIES["numbers"][1:10],
    "material": MATERIALS,
}


def glue_text(rng: random.Random) -> str:
    """One to three plain sentences."""
    return " ".join(sentence(rng) for _ in range(rng.randint(1, 3)))


def sentence(rng: random.Random, names: Sequence[str] = NAMES) -> str:
    """One plain sentence, with people of the names given."""
    if rng.random() < 0.08:
        return rng.choice(FIXED)
    # Each slot is filled on its own ("{city} to {city}" names two cities), but for "who", the same name again.
    fillings = FILLINGS | {"name": names, "who": (rng.choice(names),)}
    slots = Formatter().parse(rng.choice(SENTENCES))
    return "".join(literal + (rng.choice(fillings[slot]) if slot else "") for literal, slot, _, _ in slots)
