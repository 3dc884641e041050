"""The tokenizer of the demo model: known words, pairs of digits, and bytes for everything else.

A BPE without merges. The text is cut into words (with the space before them), numbers from the left in pairs of digits,
and runs of punctuation; a piece that the vocabulary knows is one token, any other falls apart into its bytes. So every
text has a tokenization, and decoding gives the text back.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from transformer_lens.demo import glue, grammar, indirect_objects, knowledge, names, series, signatures, words, world
from transformer_lens.demo.folder import BOS
from transformer_lens.demo.words import listed

CONTEXT = 128
PUNCTUATION = listed(
    """
    . , ! ? : ; ' " ( ) [ ] { } < > / \\ | @ # $ % ^ & * - _ + = ~ `
    ." ," ?" !" '' "" \""" () (" ") ): )) [] ]] == != += -> => <= >= -- ... ** // :// ,' .' '. ';
    """
)
SPACES = ("\n", "\n\n", "  ", "   ", "    ", "       ", "\n   ", "\n\n   ", "\n       ", "\t")
SUFFIXES = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def piece_pattern() -> str:
    """The pattern that cuts a text into pieces, for the tokenizers library.

    It follows GPT-2's, with three changes: digits come in pairs, "isn't" is "isn" and "'t" as there, and the one-word
    landmarks are cut in two.
    """
    cuts = "|".join(f"{head}(?={tail})" for head, tail in world.SPLIT_WORDS.values())
    suffixes = "|".join(SUFFIXES)
    return rf" ?(?:{cuts})|{suffixes}| ?\p{{L}}+| ?\d{{1,2}}| ?[^\s\p{{L}}\d]+|\s+(?!\S)|\s+"


def known_pieces() -> list[str]:
    """All pieces that get a token of their own, by id after the 256 bytes.

    Every word has a form with a space in front; those that begin a text or follow punctuation also one without.
    """
    bare = dict.fromkeys(word for text in _beginnings() for word in _words(text))
    spaced = dict.fromkeys(word for text in _texts() for word in _words(text))
    pieces = [*bare, *(f" {word}" for word in bare | spaced)]
    for head, tail in world.SPLIT_WORDS.values():
        pieces += [f" {head}", tail]
    digits = [f"{number:02}" for number in range(100)] + [str(number) for number in range(10)]
    pieces += [form for pair in digits for form in (pair, f" {pair}")]
    pieces += [form for mark in PUNCTUATION for form in (mark, f" {mark}")]
    pieces += [*SPACES, *SUFFIXES]
    return list(dict.fromkeys(pieces))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A new tokenizer over `known_pieces`, with one special token for begin, end and padding. It adds no BOS itself."""
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ids = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for piece in known_pieces():
        ((symbol, _),) = to_bytes.pre_tokenize_str(piece)
        ids.setdefault(symbol, len(ids))
    bare = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(piece_pattern()), behavior="isolated"), to_bytes]
    )
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens([AddedToken(BOS, special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=BOS,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json to the folder."""
    build_tokenizer().save_pretrained(folder)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)


def _texts() -> Iterator[str]:
    """Every string that the task texts are made of, and the common words."""
    yield from names.NAMES
    yield from (name for name in world.LANDMARKS if name not in world.SPLIT_WORDS)
    yield from (*world.LANDMARKS.values(), *world.CAPITALS, *world.CAPITALS.values())
    yield from (*words.PLACES, *words.OBJECTS, *words.NOUNS, *words.NOUNS.values(), *words.EVENTS, *words.ARGUMENTS)
    for entries in words.SERIES.values():
        yield from entries
    yield from (*words.ADJECTIVES, *words.ANIMALS, *words.JOBS, *words.THINGS, *words.ACTIONS, *words.WEATHER)
    for template in _templates():
        yield "".join(literal + " " for literal, _, _, _ in Formatter().parse(template))
    yield from (*words.COMMON, *words.CODE, *words.FIRST)


def _beginnings() -> Iterator[str]:
    """Every word that stands somewhere without a space in front."""
    yield from (*names.NAMES, *world.CAPITALS, *world.CAPITALS.values(), *signatures.NOTES, *words.CODE, *words.FIRST)
    for entries in words.SERIES.values():
        yield from entries
    for template in _templates():
        yield from re.findall(r"(?<![ \w}])[^\W\d_]+", re.sub(r"{\w+}", "}", template))


def _templates() -> tuple[str, ...]:
    return (
        *(*indirect_objects.TEMPLATES, *indirect_objects.HELD_OUT_TEMPLATES),
        *(*indirect_objects.NEAR, *indirect_objects.THANKS, *indirect_objects.HELD_OUT_THANKS, *indirect_objects.TAILS),
        *(*knowledge.LANDMARK_TEMPLATES, *knowledge.CAPITAL_TEMPLATES, *knowledge.COUNTRY_TEMPLATES, *knowledge.TAILS),
        *(wording for wording, _, _ in grammar.PRONOUN_TEMPLATES),
        *(f" {word}" for _, *pair in grammar.PRONOUN_TEMPLATES for word in pair),
        *(tail for tails in grammar.PRONOUN_TAILS.values() for tail in tails),
        *(*grammar.FRONTS, *(f" {word}" for word in grammar.PREPOSITIONS)),
        *(verb for pair in grammar.VERBS for verb in pair),
        *(tail for tails in grammar.AGREEMENT_TAILS.values() for tail in tails),
        *(*series.YEAR_TEMPLATES, *series.YEAR_TAILS, ", the town grew."),
        *(signatures.TEMPLATE, signatures.LAST, *glue.SENTENCES, *glue.FIXED, *(f" {word}" for word in glue.MATERIALS)),
    )
