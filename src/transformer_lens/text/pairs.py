"""Two texts as one row of token ids, as a tokenizer joins them for a model that compares texts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class EncodedPair(NamedTuple):
    """One row: token ids, which text each belongs to (0 or 1), and 1 for each token."""

    tokens: Int[Tensor, "1 pos"]
    token_type_ids: Int[Tensor, "1 pos"]
    attention_mask: Int[Tensor, "1 pos"]


def encode_pair(tokenizer: Any, first: str, second: str, limit: int | None = None) -> EncodedPair:
    """Two texts in one row, with the special tokens that the tokenizer puts around and between them.

    Args:
        tokenizer: a transformers tokenizer.
        first, second: the texts.
        limit: cut the longer text until the row has so many tokens; None: no limit.

    Example:
        >>> import transformers
        >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
        >>> tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
        >>> pair = encode_pair(tokenizer, "the cat", "sat")
        >>> pair.tokens.tolist(), pair.token_type_ids.tolist()
        ([[2, 5, 6, 3, 7, 3]], [[0, 0, 0, 0, 1, 1]])
    """
    encoded = tokenizer(
        first,
        second,
        truncation=limit is not None,
        max_length=limit,
        return_token_type_ids=True,
        return_attention_mask=True,
        verbose=False,
    )
    names = ("input_ids", "token_type_ids", "attention_mask")
    return EncodedPair(*(torch.tensor([encoded[name]]) for name in names))
