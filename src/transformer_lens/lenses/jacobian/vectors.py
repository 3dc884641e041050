"""What a Jacobian lens is: a matrix for each layer, which leads a stream to the end and tokens' directions back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.lenses.jacobian.provenance import check_metadata, check_model

ConceptToken = str | int


class LensVectors:
    """The matrices of a Jacobian lens, and the directions in a layer's output that they give to tokens.

    Attributes:
        jacobians: by block: what its output becomes at the end, [out, in]; float32, on CPU.
        n_prompts: over how many rows they are means.
        d_model: the width of the stream.
        metadata: of which model, on what and how, as JSON can hold it.
        embedding: the same of the stream that enters block 0; None: not fitted.
    """

    def __init__(
        self,
        jacobians: Mapping[int, Tensor],
        *,
        n_prompts: int,
        d_model: int,
        metadata: Mapping[str, Any] | None = None,
        embedding: Tensor | None = None,
    ) -> None:
        if not jacobians:
            raise ValueError("A lens has at least one layer: jacobians is empty.")
        named = {f"jacobians[{layer}]": matrix for layer, matrix in jacobians.items()}
        for name, matrix in (named if embedding is None else named | {"embedding": embedding}).items():
            if matrix.shape != (d_model, d_model):
                raise ValueError(f"{name} has shape [{d_model}, {d_model}]; got {tuple(matrix.shape)}.")
        check_metadata(metadata)
        self.jacobians = {layer: matrix.detach().float().cpu() for layer, matrix in sorted(jacobians.items())}
        self.n_prompts = n_prompts
        self.d_model = d_model
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.embedding = None if embedding is None else embedding.detach().float().cpu()
        # The layer whose entering stream is the final one, as far as it is known.
        self._end: int | None = self.metadata["target_layer"] + 1 if "target_layer" in self.metadata else None
        self._on_device: dict[tuple[int, torch.device], Tensor] = {}
        self._dictionaries: dict[int, tuple[Tensor, Tensor]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(layers={self.source_layers}, d_model={self.d_model}, n_prompts={self.n_prompts})"

    @property
    def source_layers(self) -> list[int]:
        """The blocks whose outputs it reads, ascending."""
        return sorted(self.jacobians)

    def validate_model(self, model: Any) -> Self:
        """The lens itself, if it can be of this model.

        Raises:
            TypeError: this is no model of this library.
            ValueError: it has another width, number of layers or name.
        """
        check_model(model, d_model=self.d_model, layers=self.source_layers, metadata=self.metadata)
        self._end = model.cfg.n_layers
        return self

    def transport(self, residual: Float[Tensor, "*row d_model"], layer: int) -> Float[Tensor, "*row d_model"]:
        """What a block's output becomes at the end, to first order: jacobians[layer] times it, in float32.

        Raises:
            ValueError: the lens has no such layer, or another width.
        """
        if residual.shape[-1] != self.d_model:
            raise ValueError(f"This lens is of width {self.d_model}; got streams of width {residual.shape[-1]}.")
        return residual.float() @ self._jacobian(layer, residual.device).T

    def lens_vectors(
        self, model: Any, tokens: ConceptToken | Sequence[ConceptToken] | Tensor, layer: int
    ) -> Float[Tensor, "token d_model"]:
        """The directions in a block's output that move tokens' logits: jacobians[layer]ᵀ times their W_U columns.

        Args:
            model: whose W_U it is.
            tokens: one or more, as text that is one token or as ids.
            layer: the block; negative: from the end.

        Raises:
            ValueError: there is no token, an id out of range, or no such layer.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> from transformer_lens.lenses import jacobian_lens
            >>> model, prompt = HookedTransformer.from_pretrained("demo"), "The Eiffel Tower is in"
            >>> lens = jacobian_lens(model, prompt)
            >>> stream = model(prompt, stop_at_layer=3)[0, -1]  # what block 2 puts out
            >>> paris, rome = lens.lens_vectors(model, [" Paris", " Rome"], 2) @ stream
            >>> bool(paris > rome)
            True
        """
        layer = self._layer(model, layer)
        columns = model.W_U.detach()[:, token_ids(model, tokens)]
        found: Tensor = columns.T.float() @ self._jacobian(layer, columns.device)
        return found

    def lens_vector_dictionary(self, model: Any, layer: int) -> Float[Tensor, "d_vocab d_model"]:
        """The lens vectors of the whole vocabulary, on the model's device.

        Kept, with a copy of the W_U that they are of, until W_U changes or `clear_device_cache` is called: 4 bytes
        times d_vocab times d_model each.

        Raises:
            ValueError: no such layer.
        """
        layer = self._layer(model, layer)
        W_U = model.W_U.detach()
        known = self._dictionaries.get(layer)
        if known is None or known[0].device != W_U.device or not torch.equal(known[0], W_U):
            copies = [copy for copy, _ in self._dictionaries.values() if copy.device == W_U.device]
            same = next((copy for copy in copies if torch.equal(copy, W_U)), None)
            known = (W_U.clone() if same is None else same, W_U.T.float() @ self._jacobian(layer, W_U.device))
            self._dictionaries[layer] = known
        return known[1]

    def clear_device_cache(self) -> None:
        """Let go of the matrices and dictionaries that are kept on devices."""
        self._on_device.clear()
        self._dictionaries.clear()

    def _directions(self, model: Any, tokens: Any, layer: int) -> Float[Tensor, "token d_model"]:
        """Lens vectors that an intervention can use.

        Raises:
            ValueError: one of them is zero or not finite.
        """
        found = self.lens_vectors(model, tokens, layer)
        if not (found.isfinite().all() and (found.norm(dim=-1) > 0).all()):
            raise ValueError(f"The lens vectors of {tokens!r} at layer {layer} have one that is zero or not finite.")
        return found

    def _layer(self, model: Any, layer: int) -> int:
        """The block counted from the start, if the lens has it."""
        self.validate_model(model)
        found = layer + model.cfg.n_layers if layer < 0 else layer
        self._known(found)
        return found

    def _known(self, layer: int) -> Tensor:
        if layer not in self.jacobians:
            raise ValueError(
                f"This lens has no layer {layer}; it has {self.source_layers}. The last block's output is the end."
            )
        return self.jacobians[layer]

    def _jacobian(self, layer: int, device: torch.device) -> Float[Tensor, "d_model d_model"]:
        if device.type == "cpu":
            return self._known(layer)
        if (layer, device) not in self._on_device:
            self._on_device[layer, device] = self._known(layer).to(device)
        return self._on_device[layer, device]


def token_ids(model: Any, tokens: ConceptToken | Sequence[ConceptToken] | Tensor) -> list[int]:
    """The ids of tokens given as text or as ids.

    Raises:
        ValueError: there is none, or an id is out of range.
    """
    given = (
        tokens.flatten().tolist()
        if isinstance(tokens, Tensor)
        else [tokens]
        if isinstance(tokens, str | int)
        else tokens
    )
    ids = [int(model.to_single_token(token)) if isinstance(token, str) else int(token) for token in given]
    d_vocab = model.cfg.d_vocab
    if not ids or not all(0 <= token < d_vocab for token in ids):
        raise ValueError(f"Give one or more tokens, with ids from 0 to {d_vocab - 1}; got {ids}.")
    return ids
