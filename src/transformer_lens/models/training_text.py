"""Texts of the kind that a model was trained on."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from transformer_lens.errors import UnknownNameError
from transformer_lens.text import USE_DEFAULT_VALUE, PaddingSide
from transformer_lens.text.packing import get_dataset

# By what a model's name contains; the first that fits counts.
TRAINED_ON = {
    "c4-code": ("solu", "gelu", "attn-only"),
    "openwebtext": ("gpt2", "stanford-crfm"),
    "pile": ("pythia", "gpt-neo", "gpt-j", "opt", "toy-pile"),
    "c4": ("t5", "mpt"),
}


class TrainingText:
    """Samples of a model's training set. Needs `cfg` and `to_tokens`.

    Attributes:
        dataset: items {"text"}: what was loaded, or set by you; None: nothing yet.
    """

    cfg: Any
    dataset: Any = None

    def load_sample_training_dataset(self, **kwargs: Any) -> Any:
        """Ten thousand texts like those that this model was trained on, from the hub; kept as `dataset`.

        Args:
            kwargs: for `datasets.load_dataset`.

        Raises:
            UnknownNameError: it is not known what the model was trained on.
            MissingExtraError: the `datasets` package is not installed.
        """
        self.dataset = get_dataset(training_set(self.cfg.model_name), **kwargs)
        return self.dataset

    def sample_datapoint(
        self,
        tokenize: bool = False,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
    ) -> str | Int[Tensor, "1 pos"]:
        """A text of `dataset` drawn at random (torch's generator), or its tokens; loads the dataset if there is none.

        Args:
            tokenize: give tokens, cut to n_ctx.
            prepend_bos, padding_side: as for `to_tokens`.
        """
        if self.dataset is None:
            self.load_sample_training_dataset()
        text: str = self.dataset[int(torch.randint(len(self.dataset), ()))]["text"]
        if not tokenize:
            return text
        tokens: Tensor = self.to_tokens(text, prepend_bos=prepend_bos, padding_side=padding_side)  # type: ignore[attr-defined]
        return tokens


def training_set(model_name: str) -> str:
    """The short name of the published set that is like what a model of this name was trained on.

    Raises:
        UnknownNameError: it is not known.

    Example:
        >>> training_set("gpt2-small"), training_set("EleutherAI/pythia-70m")
        ('openwebtext', 'pile')
    """
    for name, parts in TRAINED_ON.items():
        if any(part in model_name.lower() for part in parts):
            return name
    raise UnknownNameError(
        f"It is not known what {model_name!r} was trained on. Set model.dataset to items that have a 'text', or see "
        "transformer_lens.text.packing.get_dataset."
    )
