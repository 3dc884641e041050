"""Generation of text on a wrapped host: transformers' own generate, with hooks in place at every step."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig

from transformer_lens.generation.adapter import driver_of
from transformer_lens.generation.sampling import prompted
from transformer_lens.models.generating import Generating, as_text
from transformer_lens.text import USE_DEFAULT_VALUE
from transformer_lens.wrapped.host import WrappedHost


class BridgeGenerating(Generating):
    """`generate` and `generate_stream` as on HookedTransformer, and `hf_generate`."""

    host: WrappedHost

    @torch.no_grad()
    def hf_generate(
        self,
        input: str | list[str] | Tensor,
        *,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
        **generation_kwargs: Any,
    ) -> Any:
        """What the transformers model's own generate returns, with its own defaults; hooks run at every step.

        Args:
            input: a text, texts (padded on the left), token ids, or embeddings.
            attention_mask: for ids and embeddings, where they do not show the padding.
            generation_kwargs: arguments of transformers' generate.

        Returns:
            A text for a text, a list for a list, ids for ids; what generate returns where it is told to return a dict.

        Example:
            >>> from transformer_lens.models.transformer_bridge import TransformerBridge
            >>> bridge = TransformerBridge.boot_transformers("demo", device="cpu")
            >>> bridge.hf_generate("The Eiffel Tower is in", max_new_tokens=1)
            'The Eiffel Tower is in Paris'
        """
        tokens, embeddings, mask = self._to_continue(input, USE_DEFAULT_VALUE, None, attention_mask)
        given = embeddings if tokens is None else tokens
        assert given is not None
        if mask is None:
            mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
        name = "inputs_embeds" if tokens is None else "inputs"
        with prompted(self, given.shape[1]), self.host.wired():
            output = self.host.model.generate(**{name: given}, attention_mask=mask, **generation_kwargs)
        return output if isinstance(input, Tensor) or not isinstance(output, Tensor) else self._texts(output, input)

    def _texts(self, output: Tensor, input: str | list[str]) -> str | list[str]:
        return as_text(self.codec, output, one=isinstance(input, str))


class WrappedDriver:
    """Generation with a wrapped model: its own generate, without its own defaults, with hooks in place.

    Args:
        bridge: the bridge.
    """

    def __init__(self, bridge: BridgeGenerating):
        self.host = bridge.host

    def generate(self, **arguments: Any) -> Any:
        """What the transformers model's generate returns."""
        # NOTE: generate fills what its configuration leaves open (no end token, say) from the model's own defaults.
        own = self.host.model.generation_config
        try:
            self.host.model.generation_config = GenerationConfig()
            with self.host.wired():
                return self.host.model.generate(**arguments)
        finally:
            self.host.model.generation_config = own


@driver_of.register
def _(model: BridgeGenerating, padded: bool) -> WrappedDriver:
    return WrappedDriver(model)
