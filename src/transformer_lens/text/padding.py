"""Rows of token ids into one tensor, and back: which of its tokens are padding."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from transformer_lens.text.errors import SpecialTokenError

PaddingSide: TypeAlias = Literal["left", "right"]


class EncodedText(NamedTuple):
    """A padded batch of token ids, and a mask of the same shape: 1 for a token, 0 for padding."""

    tokens: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]


def pad_rows(
    rows: Sequence[Sequence[int]],
    *,
    pad_id: int | None,
    padding_side: PaddingSide = "right",
    device: torch.device | str | None = None,
) -> EncodedText:
    """The rows as one batch, the shorter ones padded on one side, with the exact attention mask.

    Raises:
        SpecialTokenError: the rows differ in length and there is no padding token.

    >>> tokens, mask = pad_rows([[5, 6, 7], [8]], pad_id=0, padding_side="left")
    >>> tokens.tolist(), mask.tolist()
    ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]])
    """
    check_padding_side(padding_side)
    width = max((len(row) for row in rows), default=0)
    if pad_id is None and any(len(row) < width for row in rows):
        raise SpecialTokenError(
            f"Texts of {min(len(row) for row in rows)} to {width} tokens need padding, and the tokenizer has neither a "
            "padding nor an EOS token. Set tokenizer.pad_token, or give texts of one length."
        )
    tokens = torch.full((len(rows), width), 0 if pad_id is None else pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if padding_side == "left" else slice(0, len(row))
        tokens[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = 1
    return EncodedText(tokens.to(device), mask.to(device))


def attention_mask(
    tokens: Int[Tensor, "batch pos"],
    *,
    pad_id: int | None,
    bos_id: int | None = None,
    prepend_bos: bool = True,
    padding_side: PaddingSide = "right",
) -> Int[Tensor, "batch pos"] | None:
    """The attention mask that the tokens themselves show, 1 for a token and 0 for padding; None if nothing is padded.

    Padding is the run of padding tokens at the start (`padding_side="left"`) or at the end of a row. Where padding and
    BOS share one id and BOS is prepended, the last token of a run at the start is the BOS. A row has at least one
    token that is not padding. Padding that shares its id with EOS also takes the EOS tokens at that end of a text:
    use the mask of `pad_rows` where the text is at hand.

    >>> tokens = torch.tensor([[0, 0, 0, 5], [0, 5, 6, 7]])
    >>> attention_mask(tokens, pad_id=0, bos_id=0, padding_side="left").tolist()
    [[0, 0, 1, 1], [1, 1, 1, 1]]
    >>> attention_mask(tokens, pad_id=9, padding_side="left") is None
    True
    """
    lengths = _padding_lengths(tokens, pad_id, bos_id if prepend_bos else None, padding_side)
    if not bool(lengths.any()):
        return None
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    if padding_side == "right":
        positions = positions.flip(0)
    return (positions[None, :] >= lengths[:, None]).long()


def remove_bos(
    tokens: Int[Tensor, "batch pos"],
    *,
    bos_id: int,
    pad_id: int | None,
    padding_side: PaddingSide = "right",
) -> Int[Tensor, "batch pos_without_bos"]:
    """The tokens without the BOS that starts each row; padding stays where it is.

    Raises:
        SpecialTokenError: a row does not start with BOS.

    >>> remove_bos(torch.tensor([[9, 1, 5], [1, 5, 6]]), bos_id=1, pad_id=9, padding_side="left").tolist()
    [[9, 5], [5, 6]]
    """
    check_padding_side(padding_side)
    if padding_side == "right":
        first = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
    else:
        first = _padding_lengths(tokens, pad_id, bos_id, padding_side)
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    is_first = positions[None, :] == first[:, None]
    without = (~(is_first & (tokens == bos_id)).any(dim=1)).nonzero().flatten().tolist()
    if without:
        raise SpecialTokenError(f"Rows {without} do not start with BOS (id {bos_id}), so there is none to remove.")
    return tokens[~is_first].reshape(tokens.shape[0], tokens.shape[1] - 1)  # (batch, pos - 1)


def check_padding_side(padding_side: str) -> None:
    """Nothing; raises ValueError unless the side is "left" or "right".

    >>> check_padding_side("left")
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side must be 'left' or 'right', not {padding_side!r}.")


def _padding_lengths(
    tokens: Int[Tensor, "batch pos"], pad_id: int | None, bos_id: int | None, padding_side: PaddingSide
) -> Int[Tensor, "batch"]:
    """The number of padding tokens at one end of each row; at most pos - 1."""
    check_padding_side(padding_side)
    if pad_id is None:
        return torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
    is_pad = (tokens == pad_id).long()
    run = (is_pad if padding_side == "left" else is_pad.flip(1)).cumprod(dim=1).sum(dim=1)
    if padding_side == "left" and bos_id == pad_id:
        run = run - 1
    return run.clamp(min=0, max=max(tokens.shape[1] - 1, 0))
