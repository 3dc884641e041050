"""The demo tokenizer: GPT-2's manners, known words in one token, and every text back as it was."""

import random

import pytest
from transformers import PreTrainedTokenizerFast

from transformer_lens import demo
from transformer_lens.demo.names import NAMES
from transformer_lens.demo.world import CAPITALS, LANDMARKS


def pieces(text):
    words = demo.tokenizer()
    return [words.decode([index]) for index in words(text)["input_ids"]]


def test_is_a_fast_tokenizer_with_one_special_token_that_it_never_adds():
    words = demo.tokenizer()
    assert isinstance(words, PreTrainedTokenizerFast)
    assert words.bos_token == words.eos_token == words.pad_token == "<|endoftext|>"
    assert words.bos_token_id == len(words) - 1 > 2000
    assert pieces("John") == ["John"]


def test_known_words_are_single_tokens_with_a_space_in_front():
    cities = set(LANDMARKS.values()) | set(CAPITALS.values())
    for word in (*NAMES, *cities, *CAPITALS, "January", "the", "she", "is", "seven"):
        assert pieces(f" {word}") == [f" {word}"]
    for word in (*NAMES, *CAPITALS, "January", "The", "When", "def"):
        assert pieces(word) == [word]


def test_an_unknown_word_falls_apart_into_bytes():
    assert pieces("xylophone") == list("xylophone")
    assert pieces(" xylo") == list(" xylo")


def test_every_landmark_is_two_tokens():
    for name in LANDMARKS:
        assert len(pieces(f" {name}")) == 2, name
    eiffel, colosseum = (pieces(f"The {name} is in the city of") for name in ("Eiffel Tower", "Colosseum"))
    assert len(eiffel) == len(colosseum) == 8


def test_numbers_are_cut_in_pairs_of_digits():
    assert pieces("from 1732 to 17") == ["from", " 17", "32", " to", " 17"]
    assert pieces("12345") == ["12", "34", "5"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello, world!",
        "isn't it?  Two  spaces,\ttabs\r\nand lines\n\n\n",
        "h\u00e9llo w\u00f6rld \u65e5\u672c\u8a9e \U0001f600",
        " leading and trailing ",
        "def f(x):\n    return x ** 2  # power\n",
        "Colos seum, Colosseums, unknownword 3.14159",
        "e\u0301 \ufb01 \u212b",
        "before <|endoftext|> after",
    ],
)
def test_decoding_gives_the_text_back(text):
    words = demo.tokenizer()
    assert words.decode(words(text)["input_ids"]) == text


def test_decoding_gives_random_text_back():
    rng = random.Random(0)
    words = demo.tokenizer()
    for _ in range(300):
        text = "".join(rng.choice("ab Z9\n\t.'\u00fc\u4e2d\u00a0\u2028-_:") for _ in range(30))
        assert words.decode(words(text)["input_ids"]) == text
