"""What a model with a tokenizer can do with text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.text import USE_DEFAULT_VALUE, PaddingSide, TextCodec, Tokenizer

Text = str | Sequence[str]


def make_codec(
    cfg: HookedTransformerConfig,
    tokenizer: Tokenizer | None,
    prepend_bos: bool | None,
    padding_side: PaddingSide | None = None,
) -> TextCodec:
    """The codec of a model over this tokenizer, or over the one that cfg.tokenizer_name names.

    What the configuration leaves to the tokenizer (d_vocab) is written into it.

    Args:
        cfg: the model's own configuration.
        tokenizer: a tokenizer, if one is given.
        prepend_bos: whether rows begin with BOS where a call does not say; None: as the tokenizer does by itself.
        padding_side: where batches are padded; None: where the tokenizer says.
    """
    if tokenizer is None and cfg.tokenizer_name is not None:
        tokenizer = import_module("transformer_lens.text.loading").load_tokenizer(
            cfg.tokenizer_name, trust_remote_code=cfg.trust_remote_code
        )
    codec = TextCodec(tokenizer, n_ctx=cfg.n_ctx, default_prepend_bos=prepend_bos, default_padding_side=padding_side)
    if tokenizer is not None:
        if cfg.d_vocab == -1:
            cfg.d_vocab = codec.d_vocab
            cfg.d_vocab_out = codec.d_vocab if cfg.d_vocab_out == -1 else cfg.d_vocab_out
        cfg.tokenizer_prepends_bos = bool(codec.frame.prefix)
    return codec


class TextMethods:
    """Text to tokens and back, as the model's configuration says. Needs `cfg`, `codec`, `input_device` and `W_U`."""

    cfg: Any
    codec: TextCodec
    input_device: Any
    W_U: Any

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, if there is one."""
        return self.codec.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer | None) -> None:
        self.set_tokenizer(tokenizer)

    def set_tokenizer(self, tokenizer: Tokenizer | None, default_padding_side: PaddingSide | None = None) -> None:
        """Use this tokenizer from now on; it is read, never changed."""
        self.codec = TextCodec(
            tokenizer,
            n_ctx=self.cfg.n_ctx,
            default_prepend_bos=self.cfg.default_prepend_bos,
            default_padding_side=default_padding_side or self.codec.default_padding_side,
        )
        self.cfg.tokenizer_prepends_bos = None if tokenizer is None else bool(self.codec.frame.prefix)

    def _prepends(self, prepend_bos: bool | None) -> bool:
        return self.cfg.default_prepend_bos if prepend_bos is None else prepend_bos

    def to_tokens(
        self,
        input: Text,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
        move_to_device: bool = True,
        truncate: bool = True,
    ) -> Int[Tensor, "batch pos"]:
        """Token ids of a text (batch 1) or of several, padded to one length. See `TextCodec.to_tokens`."""
        return self.codec.to_tokens(
            input,
            prepend_bos=self._prepends(prepend_bos),
            padding_side=padding_side,
            truncate=truncate,
            device=self.input_device if move_to_device else None,
        )

    def to_string(self, tokens: Any) -> str | list[str]:
        """The text of token ids: one string for one row, a list for several."""
        return self.codec.to_string(tokens)

    def to_str_tokens(
        self,
        input: Any,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
    ) -> list[str] | list[list[str]]:
        """The text of each token of a text or of one row of ids; a list of such lists for a list of texts."""
        return self.codec.to_str_tokens(input, prepend_bos=self._prepends(prepend_bos), padding_side=padding_side)

    def to_single_token(self, string: str) -> int:
        """The id of a string that is one token; an error that shows its tokens where it is several."""
        return self.codec.to_single_token(string)

    def to_single_str_token(self, int_token: int) -> str:
        """The text of one token id."""
        return self.codec.to_single_str_token(int_token)

    def get_token_position(
        self,
        single_token: str | int,
        input: Any,
        mode: Literal["first", "last"] = "first",
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
    ) -> int:
        """Where a token stands in a text or a row of ids (BOS counts), its first or last occurrence."""
        return self.codec.get_token_position(
            single_token, input, mode, prepend_bos=self._prepends(prepend_bos), padding_side=padding_side
        )

    def tokens_to_residual_directions(self, tokens: str | int | Tensor) -> Float[Tensor, "*token d_model"]:
        """The column of W_U of each token: the direction in the stream that raises its logit.

        Args:
            tokens: a string that is one token, an id, or a tensor of ids; its axes are kept, an axis of one is dropped.
        """
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        ids = torch.as_tensor(tokens, device=self.W_U.device)
        directions: Tensor = self.W_U.T[ids.squeeze() if ids.numel() == 1 else ids]
        return directions
