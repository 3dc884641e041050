"""The methods of a Jacobian lens that make hooks: edits of blocks' outputs along tokens' lens vectors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from transformer_lens.lenses.jacobian.coordinates import Place, check_edit, solve_coordinate_patch_positions
from transformer_lens.lenses.jacobian.interventions import (
    Hook,
    ablation_hook,
    clean_streams,
    hook,
    steering_hook,
    swap_hook,
)
from transformer_lens.lenses.jacobian.reading import places
from transformer_lens.lenses.jacobian.sparse import ALGORITHM, JSpaceDecomposition, K
from transformer_lens.lenses.jacobian.vectors import ConceptToken, LensVectors, token_ids

Clean = Mapping[str, Tensor]


class Intervening(LensVectors):
    """Hooks for `model.hooks(fwd_hooks=…)` and `run_with_hooks` (see `JacobianLens`).

    Everywhere `positions` are those of the tokens that run: with a key-value cache, of the new ones. None: all.
    """

    def steering_hooks(
        self,
        model: Any,
        token: ConceptToken,
        layers: Sequence[int],
        *,
        alpha: float = 4.0,
        positions: Sequence[int] | None = None,
    ) -> list[Hook]:
        """Hooks that add a token's lens vector, at alpha times the median norm of the streams that are edited.

        Args:
            model: the model that will run.
            token: as text that is one token, or its id.
            layers: the blocks after which it is added.
            alpha: in units of the median norm: 1 changes a stream about as much as it is long.
            positions: where.

        Raises:
            ValueError: no such layer or token, or its lens vector is zero.
        """
        found = token_ids(model, token)
        if len(found) > 1:
            raise ValueError(f"token is one token; got {found}. Steer along each with hooks of its own.")
        return [
            steering_hook(layer, self._directions(model, found, layer)[0], alpha, positions)
            for layer in self._layers(model, layers)
        ]

    def ablation_hooks(
        self,
        model: Any,
        tokens: ConceptToken | Sequence[ConceptToken],
        layers: Sequence[int],
        *,
        positions: Sequence[int] | None = None,
    ) -> list[Hook]:
        """Hooks that project the span of tokens' lens vectors out.

        Args:
            model, layers, positions: as in `steering_hooks`.
            tokens: one or more.

        Raises:
            ValueError: as there.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> from transformer_lens.lenses import jacobian_lens
            >>> model, prompt = HookedTransformer.from_pretrained("demo"), "The Eiffel Tower is in"
            >>> lens = jacobian_lens(model, prompt)
            >>> logits = model.run_with_hooks(prompt, fwd_hooks=lens.ablation_hooks(model, " Paris", [2]))
            >>> model.to_string(logits[0, -1].argmax())
            ' the'
        """
        return [
            ablation_hook(layer, self._directions(model, tokens, layer), positions)
            for layer in self._layers(model, layers)
        ]

    def swap_hooks(
        self,
        model: Any,
        source_token: ConceptToken,
        target_token: ConceptToken,
        layers: Sequence[int],
        *,
        alpha: float = 1.0,
        positions: Sequence[int] | None = None,
        clamp_to: Clean | None = None,
    ) -> list[Hook]:
        """Hooks that exchange a stream's coordinates along two tokens' lens vectors; the rest of it stays.

        Doing it twice, in a later layer too, exchanges them back. With clamp_to they are set to the exchanged
        coordinates of another run, the same however often.

        Args:
            model, layers, positions: as in `steering_hooks`.
            source_token, target_token: two tokens.
            alpha: how far: 2 is the double-strength swap of the paper.
            clamp_to: the cache of a clean run, with the output of each of these blocks.

        Raises:
            ValueError: as there; the two are one token, or parallel; clamp_to lacks a block's output.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> from transformer_lens.lenses import jacobian_lens
            >>> model, prompt = HookedTransformer.from_pretrained("demo"), "The Eiffel Tower is in"
            >>> lens = jacobian_lens(model, prompt)
            >>> hooks = lens.swap_hooks(model, " Paris", " Rome", [2], alpha=2.0)
            >>> model.to_string(model.run_with_hooks(prompt, fwd_hooks=hooks)[0, -1].argmax())
            ' Rome'
        """
        pair = _two(model, source_token, target_token)
        return [
            swap_hook(
                layer, self._directions(model, pair, layer), alpha, positions=positions,
                clean=None if clamp_to is None else clean_streams(clamp_to, layer, self.d_model),
            )
            for layer in self._layers(model, layers)
        ]  # fmt: skip

    def swap_clamp_hooks(
        self,
        model: Any,
        source_token: ConceptToken,
        target_token: ConceptToken,
        layers: Sequence[int],
        clean_cache: Clean,
        *,
        positions: Sequence[int] | None = None,
    ) -> list[Hook]:
        """`swap_hooks` with clamp_to=clean_cache, as older code calls it."""
        warnings.warn("swap_clamp_hooks is old: call swap_hooks(…, clamp_to=…).", DeprecationWarning, stacklevel=2)
        return self.swap_hooks(model, source_token, target_token, layers, positions=positions, clamp_to=clean_cache)

    def coordinate_patch_hooks(
        self,
        model: Any,
        source_token: ConceptToken,
        target_token: ConceptToken,
        layers: Sequence[int],
        *,
        positions: Sequence[int],
        decomposition_cache: MutableMapping[Place, JSpaceDecomposition] | None = None,
        k: int = K,
        mode: str = "substitute",
        alpha: float = 1.0,
        algorithm: str = ALGORITHM,
    ) -> list[Hook]:
        """Hooks that decompose the streams as they run, and give one token's coordinate to another.

        Each row and position is decomposed over the whole vocabulary in every pass, unless decomposition_cache has it.
        A pass fails where the source has no coordinate, as it may have none in a later layer once an earlier one was
        patched.

        Args:
            model, layers: as in `steering_hooks`.
            source_token, target_token: two tokens.
            positions: where; at least one.
            decomposition_cache: decompositions by (layer, row, position): used where there, else put in.
            k, mode, alpha, algorithm: as in `solve_coordinate_patch`.

        Raises:
            ValueError: as there; no position, or the two are one token.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> from transformer_lens.lenses import jacobian_lens
            >>> model, prompt = HookedTransformer.from_pretrained("demo"), "The Eiffel Tower is in"
            >>> lens = jacobian_lens(model, prompt)
            >>> hooks = lens.coordinate_patch_hooks(model, " Paris", " Rome", [2], positions=[-1], k=4)
            >>> model.to_string(model.run_with_hooks(prompt, fwd_hooks=hooks)[0, -1].argmax())
            ' Rome'
        """
        source, target = _two(model, source_token, target_token)
        check_edit(model.cfg.d_vocab, source, target, mode=mode, alpha=alpha)
        if not positions:
            raise ValueError("positions is empty: name at least one. Each is decomposed over the whole vocabulary.")

        def patching(layer: int) -> Hook:
            dictionary = self.lens_vector_dictionary(model, layer)

            def patch(streams: Float[Tensor, "batch pos d_model"], length: int) -> Tensor:
                return solve_coordinate_patch_positions(
                    streams, dictionary.to(streams.device), places(positions, length), source, target, layer=layer,
                    decomposition_cache=decomposition_cache, k=k, mode=mode, alpha=alpha, algorithm=algorithm,
                )[0]  # fmt: skip

            return hook(layer, positions, patch)

        return [patching(layer) for layer in self._layers(model, layers)]

    def _layers(self, model: Any, layers: Sequence[int]) -> list[int]:
        """The blocks counted from the start.

        Raises:
            ValueError: there is none, or the lens lacks one.
        """
        if not layers:
            raise ValueError(f"layers is empty: name at least one of {self.source_layers}.")
        return [self._layer(model, layer) for layer in layers]


def _two(model: Any, source: ConceptToken, target: ConceptToken) -> list[int]:
    pair = token_ids(model, [source, target])
    if pair[0] == pair[1]:
        raise ValueError(f"source_token and target_token are the same token, {pair[0]}: nothing would change.")
    return pair
