"""BOS and padding over a bare transformers tokenizer, for code that works without a model's TextCodec."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Int
from tokenizers import processors
from torch import Tensor

from transformer_lens.text.codec import TextCodec
from transformer_lens.text.errors import SpecialTokenError
from transformer_lens.text.padding import PaddingSide, attention_mask, check_padding_side, remove_bos
from transformer_lens.text.tokenizer import Tokenizer


def get_tokenizer_with_bos(tokenizer: Any) -> Any:
    """A tokenizer that starts every text with BOS: this one if it does so already, else a copy that does.

    Raises:
        SpecialTokenError: it declares no BOS token; or it has no Rust backend and so no template to put BOS in.

    Example:
        >>> from transformer_lens import demo
        >>> tokenizer = get_tokenizer_with_bos(demo.tokenizer())
        >>> tokenizer(" cat").input_ids, demo.tokenizer()(" cat").input_ids
        ([3370, 1026], [1026])
    """
    codec = TextCodec(tokenizer)
    if codec.frame.prefix:
        return tokenizer
    if tokenizer.bos_token is None:
        raise SpecialTokenError("The tokenizer declares no BOS token. Set tokenizer.bos_token.")
    if not tokenizer.is_fast:
        raise SpecialTokenError(
            "This tokenizer has no Rust backend, so BOS cannot be put before its texts. Load it with use_fast=True."
        )
    copy, bos = deepcopy(tokenizer), tokenizer.bos_token
    template = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    own = copy.backend_tokenizer.post_processor
    copy.backend_tokenizer.post_processor = processors.Sequence([own, template]) if own is not None else template
    return copy


def get_input_with_manually_prepended_bos(bos_token: str | None, input: str | Sequence[str]) -> str | list[str]:
    """The text or texts with the BOS token written in front.

    Raises:
        SpecialTokenError: there is no BOS token.

    Example:
        >>> get_input_with_manually_prepended_bos("<s>", ["cat", "dog"])
        ['<s>cat', '<s>dog']
    """
    if bos_token is None:
        raise SpecialTokenError("There is no BOS token to put in front: the tokenizer declares none.")
    return bos_token + input if isinstance(input, str) else [bos_token + text for text in input]


def get_tokens_with_bos_removed(
    tokenizer: Tokenizer, tokens: Int[Tensor, "batch pos"], padding_side: PaddingSide | None = None
) -> Int[Tensor, "batch pos_without_bos"]:
    """The tokens without the BOS of each row; padding stays where it is.

    Args:
        tokenizer: says which tokens are BOS and padding.
        tokens: every row starts with BOS, after its padding.
        padding_side: None: as the tokenizer pads.

    Raises:
        SpecialTokenError: a row does not start with BOS, or the tokenizer has none.

    Example:
        >>> from transformer_lens import demo
        >>> get_tokens_with_bos_removed(demo.tokenizer(), torch.tensor([[3370, 1026]]))
        tensor([[1026]])
    """
    codec = TextCodec(tokenizer, default_padding_side=padding_side)
    if codec.bos_id is None:
        raise SpecialTokenError("The tokenizer has neither a BOS nor an EOS token, so there is none to remove.")
    return remove_bos(tokens, bos_id=codec.bos_id, pad_id=codec.pad_id, padding_side=codec.padding_side)


def get_attention_mask(
    tokenizer: Tokenizer, tokens: Int[Tensor, "batch pos"], prepend_bos: bool, padding_side: PaddingSide | None = None
) -> Int[Tensor, "batch pos"]:
    """The mask that the tokens themselves show: 1 for tokens, 0 for padding.

    Args:
        tokenizer: says which token is padding.
        tokens: rows, padded on one side.
        prepend_bos: rows start with BOS, which stays 1 also where padding is the same token.
        padding_side: None: as the tokenizer pads.

    Example:
        >>> from transformer_lens import demo
        >>> get_attention_mask(demo.tokenizer(), torch.tensor([[3370, 3370, 1026]]), True, padding_side="left")
        tensor([[0, 1, 1]])
    """
    if padding_side is not None:
        check_padding_side(padding_side)
    codec = TextCodec(tokenizer, default_padding_side=padding_side)
    mask = attention_mask(
        tokens, pad_id=codec.pad_id, bos_id=codec.bos_id, prepend_bos=prepend_bos, padding_side=codec.padding_side
    )
    return torch.ones_like(tokens) if mask is None else mask
