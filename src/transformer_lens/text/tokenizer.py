"""What is asked of a tokenizer, and what can be found out about its special tokens.

Everything here only reads: a tokenizer is never given a padding token, a padding side or a BOS token.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from transformer_lens.text.errors import SpecialTokenError

# How many low token ids are tried for one that is ordinary text; reserved tokens come first in many vocabularies.
_PROBED_IDS = 1000


@runtime_checkable
class Tokenizer(Protocol):
    """The part of transformers' PreTrainedTokenizerBase that is used; each of its tokenizers has it."""

    padding_side: str
    truncation_side: str

    @property
    def special_tokens_map(self) -> Mapping[str, str]:
        """Special tokens by role: bos_token, eos_token, pad_token, ..."""

    @property
    def all_special_ids(self) -> Sequence[int]:
        """Token ids of all special tokens."""

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, padding: bool, truncation: bool, verbose: bool
    ) -> Mapping[str, list[list[int]]]:
        """Token ids under "input_ids", one list for each string."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """The text of token ids."""

    def convert_tokens_to_ids(self, tokens: str) -> int:
        """The id of one entry of the vocabulary."""

    def get_vocab(self) -> Mapping[str, int]:
        """Ids by entry."""


class Frame(NamedTuple):
    """The special tokens that a tokenizer itself puts around every text."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[list[int]]:
    """Token ids of each text, as the tokenizer makes them: neither padded nor truncated.

    >>> import tokenizers, transformers
    >>> words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "cat": 1}))
    >>> tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    >>> encode_texts(tokenizer, ["cat", ""])
    [[1], []]
    """
    if not texts:
        return []
    encoded = tokenizer(
        list(texts), add_special_tokens=add_special_tokens, padding=False, truncation=False, verbose=False
    )
    return [list(ids) for ids in encoded["input_ids"]]


def decode_ids(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of token ids, special tokens included and spaces as they are.

    >>> import tokenizers, transformers
    >>> words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "cat": 1}))
    >>> tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    >>> decode_ids(tokenizer, [0, 1])
    '<s> cat'
    """
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def special_id(tokenizer: Tokenizer, role: str) -> int | None:
    """The id of the token that the tokenizer declares for a role, or None.

    >>> import tokenizers, transformers
    >>> words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "cat": 1}))
    >>> tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    >>> special_id(tokenizer, "bos_token"), special_id(tokenizer, "pad_token")
    (0, None)
    """
    token = tokenizer.special_tokens_map.get(role)
    return None if token is None else tokenizer.convert_tokens_to_ids(token)


def probe_frame(tokenizer: Tokenizer) -> Frame:
    """The special tokens that the tokenizer puts before and after a text, found by encoding with and without them.

    Encodes the empty string and, if special tokens come back, single entries of the vocabulary until one shows which
    of them stand in front.

    Raises:
        SpecialTokenError: no entry that was tried shows where the special tokens stand.

    >>> import tokenizers, transformers
    >>> words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "cat": 1}))
    >>> words.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    >>> probe_frame(transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>"))
    Frame(prefix=(0,), suffix=())
    """
    for text in _probe_texts(tokenizer):
        (bare,) = encode_texts(tokenizer, [text])
        (framed,) = encode_texts(tokenizer, [text], add_special_tokens=True)
        if framed == bare:
            return Frame((), ())
        start = _find(bare, framed)
        if bare and start is not None:
            return Frame(tuple(framed[:start]), tuple(framed[start + len(bare) :]))
    raise SpecialTokenError(
        "The tokenizer adds special tokens to a text, but no ordinary token was found that shows on which side they "
        f"stand (the {_PROBED_IDS} lowest ids were tried). Give token ids instead of text."
    )


def _probe_texts(tokenizer: Tokenizer) -> Iterator[str]:
    """The empty string, then the text of each ordinary token with a low id."""
    yield ""
    special = set(tokenizer.all_special_ids)
    for i in range(min(_PROBED_IDS, max(tokenizer.get_vocab().values()) + 1)):
        if i not in special:
            yield decode_ids(tokenizer, [i])


def _find(part: list[int], whole: list[int]) -> int | None:
    """Where `part` first stands in `whole`, or None."""
    starts = range(len(whole) - len(part) + 1)
    return next((start for start in starts if whole[start : start + len(part)] == part), None)
