"""Where the embedded model lies on disk, and its tokenizer.

Knows files only; the texts the model was trained on are in the task modules beside it.
"""

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

BOS = "<|endoftext|>"
"""The one special token: begin of sequence, end of sequence and padding, as in GPT-2."""


def folder() -> Path:
    """Path of the demo model: an ordinary Hugging Face GPT-2 folder, shipped inside the package.

    ``AutoModelForCausalLM.from_pretrained(folder())`` loads it; nothing is downloaded.

    >>> (folder() / "config.json").is_file()
    True
    """
    return Path(__file__).parent / "model"


@cache
def encoder() -> Tokenizer:
    """The bare tokenizer of the demo model, read once per process. It adds no BOS."""
    return Tokenizer.from_file(str(folder() / "tokenizer.json"))


def bos_id() -> int:
    """The id of the BOS token, the last of the vocabulary; every smaller id is an ordinary token."""
    return int(encoder().get_vocab_size()) - 1


def tokenizer() -> PreTrainedTokenizerFast:
    """A fresh Hugging Face tokenizer of the demo model, with bos = eos = pad = ``<|endoftext|>``.

    Like GPT-2's it does not add the BOS token by itself. Known words are one token, the rest falls back to bytes.

    >>> tokenizer().tokenize("The Eiffel Tower")
    ['The', 'ĠEiffel', 'ĠTower']
    """
    loaded = AutoTokenizer.from_pretrained(folder())
    if not isinstance(loaded, PreTrainedTokenizerFast):
        raise TypeError(f"{folder()} should hold a fast tokenizer, and gave a {type(loaded).__name__}")
    return loaded
