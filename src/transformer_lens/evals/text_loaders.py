"""Batches of packed text: from texts at hand, or from published sets on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from transformer_lens.extras import import_extra
from transformer_lens.text import Tokenizer
from transformer_lens.text.packing import tokenize_and_concatenate


@dataclass(frozen=True)
class Published:
    """Where the hub has a set of texts: arguments of `datasets.load_dataset`, and the column of the text."""

    path: str
    configuration: str | None
    split: str
    column: str

    def load(self) -> Any:
        """The set, downloaded once.

        Raises:
            MissingExtraError: the `datasets` package is not installed.
        """
        datasets = import_extra(
            "datasets", f"Without texts of yours, the published set {self.path} is loaded, which", _INSTALL
        )
        return datasets.load_dataset(self.path, self.configuration, split=self.split)


_INSTALL = "transformer-lens[datasets]"
WIKI = Published("Salesforce/wikitext", "wikitext-2-v1", "train", "text")
OWT = Published("stas/openwebtext-10k", None, "train", "text")
PILE = Published("NeelNanda/pile-10k", None, "train", "text")
CODE = Published("codeparrot/codeparrot-valid-v2-near-dedup", None, "train", "content")


def make_text_data_loader(
    dataset: Any,
    tokenizer: Tokenizer,
    batch_size: int = 8,
    *,
    column: str = "text",
    max_length: int = 1024,
    seed: int = 0,
) -> DataLoader[Any]:
    """Batches {"tokens": [batch, max_length]} of texts, BOS in front of each row, rows in a random order.

    Args:
        dataset: strings, dictionaries that have `column`, or a dataset of the `datasets` package.
        tokenizer: see `tokenize_and_concatenate`.
        batch_size: rows in a batch; the last batch may have fewer.
        column: where the text is.
        max_length: tokens in a row; not more than the model's n_ctx.
        seed: of the order.

    Raises:
        TextError: the texts do not fill one row.

    Example:
        >>> from transformer_lens import demo
        >>> loader = make_text_data_loader(["Mary was tired because she worked."] * 9, demo.tokenizer(), max_length=16)
        >>> next(iter(loader))["tokens"].shape
        torch.Size([4, 16])
    """
    rows = tokenize_and_concatenate(dataset, tokenizer, max_length=max_length, column_name=column)
    order = torch.Generator().manual_seed(seed)
    return DataLoader(rows, batch_size=batch_size, shuffle=True, generator=order)


def make_wiki_data_loader(
    tokenizer: Tokenizer, batch_size: int = 8, *, dataset: Any = None, max_length: int = 1024
) -> DataLoader[Any]:
    """Batches of WikiText-2, or of `dataset`, which needs no hub. Arguments as for `make_text_data_loader`."""
    return _loader(WIKI, tokenizer, batch_size, dataset=dataset, max_length=max_length)


def make_owt_data_loader(
    tokenizer: Tokenizer, batch_size: int = 8, *, dataset: Any = None, max_length: int = 1024
) -> DataLoader[Any]:
    """Batches of 10,000 texts of OpenWebText, or of `dataset`. Arguments as for `make_text_data_loader`."""
    return _loader(OWT, tokenizer, batch_size, dataset=dataset, max_length=max_length)


def make_pile_data_loader(
    tokenizer: Tokenizer, batch_size: int = 8, *, dataset: Any = None, max_length: int = 1024
) -> DataLoader[Any]:
    """Batches of 10,000 texts of the Pile, or of `dataset`. Arguments as for `make_text_data_loader`."""
    return _loader(PILE, tokenizer, batch_size, dataset=dataset, max_length=max_length)


def make_code_data_loader(
    tokenizer: Tokenizer, batch_size: int = 8, *, dataset: Any = None, max_length: int = 1024
) -> DataLoader[Any]:
    """Batches of Python files (column "content"), or of `dataset`. Arguments as for `make_text_data_loader`."""
    return _loader(CODE, tokenizer, batch_size, dataset=dataset, max_length=max_length)


def _loader(
    published: Published, tokenizer: Tokenizer, batch_size: int, *, dataset: Any, max_length: int
) -> DataLoader[Any]:
    texts = published.load() if dataset is None else dataset
    return make_text_data_loader(texts, tokenizer, batch_size, column=published.column, max_length=max_length)
