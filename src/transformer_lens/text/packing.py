"""Texts packed into rows of one length, as language models are trained on and measured with; and published texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from transformer_lens.errors import UnknownNameError, nearest
from transformer_lens.extras import import_extra
from transformer_lens.text.codec import TextCodec
from transformer_lens.text.errors import SpecialTokenError, TextError
from transformer_lens.text.tokenizer import Tokenizer, encode_texts

PUBLISHED = {
    "openwebtext": "stas/openwebtext-10k",
    "owt": "stas/openwebtext-10k",
    "pile": "NeelNanda/pile-10k",
    "c4": "NeelNanda/c4-10k",
    "code": "NeelNanda/code-10k",
    "c4_code": "NeelNanda/c4-code-20k",
    "c4-code": "NeelNanda/c4-code-20k",
    "wiki": "NeelNanda/wiki-10k",
}
"""Short names of published sets of texts, each with a column "text", and where the hub has them."""

# A dataset of this many rows is worth a process of its own.
_ROWS_PER_PROCESS = 1000


class TokenRows(Dataset[dict[str, Tensor]]):
    """Rows of tokens as a torch dataset: each item is {"tokens": [pos]}.

    Example:
        >>> TokenRows(torch.tensor([[0, 1, 2]]))[0]
        {'tokens': tensor([0, 1, 2])}
    """

    def __init__(self, tokens: Int[Tensor, "row pos"]):
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"tokens": self.tokens[index]}


def pack_rows(
    texts: Iterable[str], tokenizer: Tokenizer, *, max_length: int, add_bos_token: bool
) -> Int[Tensor, "row max_length"]:
    """The tokens of all texts one after another, EOS between them, cut into full rows; the rest is dropped.

    Each text is tokenized whole, so no token is cut.

    Args:
        texts: what to pack; none are skipped.
        tokenizer: declares an EOS token, and BOS (or else EOS starts a row).
        max_length: tokens of a row, BOS included.
        add_bos_token: start each row with BOS.

    Raises:
        SpecialTokenError: the tokenizer declares no EOS token.

    Example:
        >>> from transformer_lens import demo
        >>> pack_rows([" cat dog", " cat"], demo.tokenizer(), max_length=3, add_bos_token=True).tolist()
        [[3370, 1026, 1024], [3370, 3370, 1026]]
    """
    codec = TextCodec(tokenizer)
    if codec.eos_id is None or (add_bos_token and codec.bos_id is None):
        raise SpecialTokenError("Texts are set apart by the tokenizer's EOS token, and it declares none.")
    ids: list[int] = []
    for row in encode_texts(tokenizer, list(texts)):
        ids += [codec.eos_id, *row] if ids else row
    lead = [codec.bos_id] if add_bos_token else []
    width = max_length - len(lead)
    rows = torch.tensor(ids[: len(ids) // width * width], dtype=torch.long).reshape(-1, width)
    return torch.cat([torch.tensor(lead, dtype=torch.long).expand(len(rows), -1), rows], 1)


def tokenize_and_concatenate(
    dataset: Any,
    tokenizer: Tokenizer,
    streaming: bool = False,
    max_length: int = 1024,
    column_name: str = "text",
    add_bos_token: bool = True,
    num_proc: int | None = 10,
    set_format: bool = True,
) -> Any:
    """The texts as rows of exactly max_length tokens: EOS between texts, BOS in front of each row, the rest dropped.

    A `datasets` dataset gives one with the column "tokens" alone (each batch of 1,000 texts is packed by itself).
    A sequence of strings, or of dictionaries, gives a `TokenRows`, and needs no further package.

    Args:
        dataset: of the `datasets` package, or strings, or dictionaries that have `column_name`.
        tokenizer: see `pack_rows`.
        streaming: the dataset streams from the hub: rows are made as they are read, in this process.
        max_length: tokens of a row.
        column_name: where the text is.
        add_bos_token: start each row with BOS.
        num_proc: processes at most, one for each 1,000 texts of a `datasets` dataset.
        set_format: give torch tensors, not lists (a `TokenRows` always gives tensors).

    Raises:
        TextError: not one row is full; max_length leaves no room for text.
        SpecialTokenError: the tokenizer declares no EOS token.
        TypeError: dataset is one string.

    Example:
        >>> from transformer_lens import demo
        >>> texts = ["The capital of France is Paris."] * 4
        >>> tokenize_and_concatenate(texts, demo.tokenizer(), max_length=8)[0]["tokens"].shape
        torch.Size([8])
    """
    if isinstance(dataset, str):
        raise TypeError("dataset is one string; give a sequence of texts, [text].")
    if max_length <= add_bos_token:
        raise TextError(f"max_length={max_length} leaves no room for text.")
    if isinstance(dataset, Sequence):
        texts = [item if isinstance(item, str) else item[column_name] for item in dataset]
        rows = pack_rows(texts, tokenizer, max_length=max_length, add_bos_token=add_bos_token)
        if len(rows) == 0:
            raise TextError(
                f"{len(texts)} texts do not fill one row of {max_length} tokens: give more, or a smaller max_length."
            )
        return TokenRows(rows)

    def pack(batch: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        rows = pack_rows(batch[column_name], tokenizer, max_length=max_length, add_bos_token=add_bos_token)
        return {"tokens": rows.numpy()}

    options: dict[str, Any] = {} if streaming else {"num_proc": _processes(len(dataset), num_proc)}
    packed = keep_single_column(dataset, column_name).map(pack, batched=True, remove_columns=[column_name], **options)
    return packed.with_format("torch") if set_format else packed


def _processes(rows: int, most: int | None) -> int | None:
    useful = min(rows // _ROWS_PER_PROCESS, most or 1)
    return useful if useful > 1 else None


def keep_single_column(dataset: Any, col_name: str) -> Any:
    """The dataset (of the `datasets` package) with this column alone.

    Raises:
        UnknownNameError: it has no such column; says which it has.
    """
    if col_name not in dataset.column_names:
        raise UnknownNameError(f"The dataset has no column {col_name!r}, only {', '.join(dataset.column_names)}.")
    return dataset.remove_columns([name for name in dataset.column_names if name != col_name])


def get_dataset(dataset_name: str, **kwargs: Any) -> Any:
    """The first ten to twenty thousand texts of a published set, from the hub, column "text".

    Args:
        dataset_name: openwebtext (owt), pile, c4, code, c4_code, wiki.
        kwargs: for `datasets.load_dataset`.

    Raises:
        UnknownNameError: another name.
        MissingExtraError: the `datasets` package is not installed.
    """
    if dataset_name not in PUBLISHED:
        near = nearest(dataset_name, PUBLISHED)
        raise UnknownNameError(f"There is no set of texts {dataset_name!r}; known: {', '.join(PUBLISHED)}.{near}")
    datasets = import_extra("datasets", f"The published set {dataset_name!r}", "transformer-lens[datasets]")
    return datasets.load_dataset(PUBLISHED[dataset_name], **{"split": "train", **kwargs})
