"""Back to transformers: the thin face of saving."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from transformer_lens import models
from transformer_lens.config import HookedTransformerConfig
from transformer_lens.models.origin import Origin

if TYPE_CHECKING:
    import transformers


class Storable:
    """A model whose weights go back to transformers.

    Attributes:
        holder: the class that specs name as the one for such models.
        origin: where the weights came from; None for a model made from a configuration.
    """

    holder: ClassVar[str]
    origin: Origin | None = None
    cfg: HookedTransformerConfig
    state_dict: Any
    tokenizer: Any

    def to_hf(self) -> transformers.PreTrainedModel:
        """A transformers model that computes what this one computes now, with weights of its own.

        Unprocessed and unedited weights come back bit for bit; processed or edited ones give the same
        log-probabilities.

        Raises:
            NotRepresentableError: the model was not loaded by `from_pretrained`, or the HuggingFace architecture lacks
                a bias that weight processing has made.

        Example:
            Ablate a head, and go on in transformers.

            >>> from transformer_lens.models.hooked_transformer import HookedTransformer
            >>> model = HookedTransformer.from_pretrained("demo", device="cpu")
            >>> model.blocks[0].attn.W_O.data[1] = 0
            >>> type(model.to_hf()).__name__
            'GPT2LMHeadModel'
        """
        return models.to_hf(self.state_dict(), self.cfg, self.origin)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write the model (see `to_hf`) and its tokenizer into a folder: config.json, safetensors, tokenizer.

        transformers' `from_pretrained`, the one here and every tool that reads HuggingFace folders load it.

        Example:
            >>> import tempfile
            >>> from transformer_lens.models.hooked_transformer import HookedTransformer
            >>> model = HookedTransformer.from_pretrained("demo", device="cpu")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save_pretrained(folder)
            ...     HookedTransformer.from_pretrained(folder, device="cpu").cfg.n_layers
            4
        """
        models.save_pretrained(self.to_hf(), self.tokenizer, save_directory)
