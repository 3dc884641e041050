"""What functions over models ask of them: three protocols that HookedTransformer and TransformerBridge satisfy."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from transformer_lens.config import TransformerLensConfig


@runtime_checkable
class TransformerLensModel(Protocol):
    """A model that can be run and looked into.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> isinstance(HookedTransformer.from_pretrained("demo"), TransformerLensModelWithWeights)
        True
    """

    @property
    def cfg(self) -> TransformerLensConfig:
        """What it is."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Logits, loss, both or nothing."""

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        """The output, and the activations."""

    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any:
        """The output of a run with hooks."""

    def to_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Token ids of a text."""


@runtime_checkable
class TrainableTransformerLensModel(TransformerLensModel, Protocol):
    """A model with parameters."""

    def parameters(self, *args: Any, **kwargs: Any) -> Any:
        """Its parameters."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Switch training mode."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast it."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Its weights by name."""


@runtime_checkable
class TransformerLensModelWithWeights(TransformerLensModel, Protocol):
    """A model whose weights can be read by their names."""

    @property
    def blocks(self) -> Any:
        """Its layers."""

    @property
    def ln_final(self) -> Any:
        """Its last norm."""

    def accumulated_bias(self, *args: Any, **kwargs: Any) -> Any:
        """The biases that were written into the stream before a layer."""

    def to_single_token(self, *args: Any, **kwargs: Any) -> Any:
        """The id of a string that is one token."""

    def tokens_to_residual_directions(self, *args: Any, **kwargs: Any) -> Any:
        """The directions that raise tokens' logits."""
