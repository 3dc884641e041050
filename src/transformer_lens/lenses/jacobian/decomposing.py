"""The methods of a Jacobian lens that split a block's output into the lens vectors of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from transformer_lens.lenses.jacobian.coordinates import CoordinatePatch, solve_coordinate_patch
from transformer_lens.lenses.jacobian.occupancy import (
    JSpaceOccupancy,
    JSpaceVarianceProfile,
    estimate_occupancy,
    variance_profile,
)
from transformer_lens.lenses.jacobian.reading import block_outputs, one_prompt, places
from transformer_lens.lenses.jacobian.sparse import ALGORITHM, JSpaceDecomposition, K, get_sparse_decomposition
from transformer_lens.lenses.jacobian.vectors import ConceptToken, LensVectors, token_ids

SKIP_FIRST = 16


class Decomposing(LensVectors):
    """A block's output as a sparse sum of lens vectors: the "J-space" (see `JacobianLens`)."""

    @torch.no_grad()
    def decompose(
        self,
        model: Any,
        activation_or_prompt: Tensor | str,
        layer: int,
        *,
        position: int | None = None,
        k: int = K,
        algorithm: str = ALGORITHM,
    ) -> JSpaceDecomposition:
        """A block's output at one position as a sum of at most k lens vectors: `support` are tokens.

        Args:
            model: the model, on either host.
            activation_or_prompt: the output itself [d_model], without position; or a text or token ids [1, seq].
            layer: the block.
            position: where in the prompt.
            k: how many tokens at most.
            algorithm: as in `get_sparse_decomposition`.

        Raises:
            ValueError: a prompt without a position, an activation with one or of another shape; and as
                `get_sparse_decomposition`.
        """
        x = self._activation(model, activation_or_prompt, layer, position)
        return get_sparse_decomposition(x, self.lens_vector_dictionary(model, layer), k, algorithm=algorithm)

    @torch.no_grad()
    def coordinate_patch(
        self,
        model: Any,
        activation_or_prompt: Tensor | str,
        layer: int,
        source_token: ConceptToken,
        target_token: ConceptToken,
        *,
        position: int | None = None,
        decomposition: JSpaceDecomposition | None = None,
        k: int = K,
        mode: str = "substitute",
        alpha: float = 1.0,
        algorithm: str = ALGORITHM,
    ) -> CoordinatePatch:
        """A block's output in which one token's coordinate is given to another. See `solve_coordinate_patch`.

        Args:
            model: the model, on either host.
            activation_or_prompt, layer, position: as in `decompose`.
            source_token: a token of the decomposition.
            target_token: another token.
            decomposition, k, mode, alpha, algorithm: as in `solve_coordinate_patch`.

        Raises:
            ValueError: as `decompose` and `solve_coordinate_patch`.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> from transformer_lens.lenses import jacobian_lens
            >>> model, prompt = HookedTransformer.from_pretrained("demo"), "The Eiffel Tower is in"
            >>> lens = jacobian_lens(model, prompt)
            >>> patch = lens.coordinate_patch(model, prompt, 2, " Paris", " Rome", position=-1, k=2)
            >>> model.to_string(patch.support_after), patch.coordinates_after[patch.source_slot].item()
            (' Paris Eiffel Rome', 0.0)
        """
        x = self._activation(model, activation_or_prompt, layer, position)
        source, target = token_ids(model, [source_token, target_token])
        return solve_coordinate_patch(
            x, self.lens_vector_dictionary(model, layer), source, target,
            decomposition=decomposition, k=k, mode=mode, alpha=alpha, algorithm=algorithm,
        )  # fmt: skip

    @torch.no_grad()
    def occupancy(
        self,
        model: Any,
        activation_or_prompt: Tensor | str,
        layer: int,
        *,
        position: int | None = None,
        max_atoms: int = K,
        num_control_dictionaries: int = 32,
        seed: int = 0,
    ) -> JSpaceOccupancy:
        """How many lens vectors a block's output holds at one position. See `estimate_occupancy`.

        Args:
            model: the model, on either host.
            activation_or_prompt, layer, position: as in `decompose`.
            max_atoms, num_control_dictionaries, seed: as in `estimate_occupancy`.

        Raises:
            ValueError: as `decompose` and `estimate_occupancy`.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> from transformer_lens.lenses import jacobian_lens
            >>> model, prompt = HookedTransformer.from_pretrained("demo"), "The Eiffel Tower is in"
            >>> lens = jacobian_lens(model, prompt)
            >>> found = lens.occupancy(model, prompt, 2, position=-1, max_atoms=4, num_control_dictionaries=2)
            >>> found.occupancy, model.to_string(found.support[0])
            (2, ' Paris')
        """
        x = self._activation(model, activation_or_prompt, layer, position)
        return estimate_occupancy(
            x, self.lens_vector_dictionary(model, layer), max_atoms=max_atoms,
            num_control_dictionaries=num_control_dictionaries, seed=seed,
        )  # fmt: skip

    @torch.no_grad()
    def fraction_of_variance(
        self,
        model: Any,
        prompts: str | Tensor | Sequence[str | Tensor],
        layers: Sequence[int] | None = None,
        *,
        k: int = K,
        skip_first: int = SKIP_FIRST,
        positions: Sequence[int] | None = None,
        show_progress: bool = False,
    ) -> JSpaceVarianceProfile:
        """The share of blocks' outputs' squared norm that at most k lens vectors' span explains, by layer.

        Args:
            model: the model, on either host.
            prompts: one or more texts or token ids [1, seq].
            layers: the blocks; None: all that the lens has.
            k: how many lens vectors at most.
            skip_first: how many positions at the beginning are left out, where none are named.
            positions: which positions; None: all others.
            show_progress: show a progress bar over prompts.

        Raises:
            ValueError: there is no prompt, a negative number, or a position that a prompt has not.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> from transformer_lens.lenses import jacobian_lens
            >>> model, prompt = HookedTransformer.from_pretrained("demo"), "The Eiffel Tower is in"
            >>> lens = jacobian_lens(model, prompt)
            >>> shares = lens.fraction_of_variance(model, prompt, [1, 2], k=2, positions=[-1]).pooled
            >>> sorted(shares), all(0.1 < share < 0.9 for share in shares.values())
            ([1, 2], True)
        """
        given = [prompts] if isinstance(prompts, str | Tensor) else list(prompts)
        if not given or skip_first < 0:
            raise ValueError(f"Give at least one prompt, and skip_first ≥ 0; got {len(given)} and {skip_first}.")
        wanted = list(dict.fromkeys(self._layer(model, layer) for layer in layers or self.source_layers))
        shares: dict[int, list[float]] = {layer: [] for layer in wanted}
        squares: dict[int, list[float]] = {layer: [] for layer in wanted}
        for prompt in tqdm(given, disable=not show_progress, desc="J-space"):
            tokens = one_prompt(model, prompt)
            where = range(skip_first, tokens.shape[1]) if positions is None else places(positions, tokens.shape[1])
            for layer, stream in block_outputs(model, tokens, wanted)[1].items():
                dictionary = self.lens_vector_dictionary(model, layer)
                for x in (stream[0, position].float() for position in where):
                    square = float(x.square().sum())
                    if square > 0:
                        found = get_sparse_decomposition(x, dictionary, k)
                        shares[layer].append(float(found.j_space_component.square().sum()) / square)
                        squares[layer].append(square)
        return variance_profile(wanted, shares, squares)

    def _activation(
        self, model: Any, activation_or_prompt: Tensor | str, layer: int, position: int | None
    ) -> Float[Tensor, "d_model"]:
        """What is decomposed: a vector as it is given, or a block's output in a prompt."""
        layer = self._layer(model, layer)
        given = activation_or_prompt
        if isinstance(given, Tensor) and given.is_floating_point():
            if position is not None or given.shape != (self.d_model,):
                raise ValueError(
                    f"An activation has shape [{self.d_model}] and takes no position; got {tuple(given.shape)} with "
                    f"position={position}."
                )
            return given.to(model.W_U.device)
        if position is None:
            raise ValueError("A prompt needs a position: which of its tokens' activation is meant? Give position=.")
        tokens = one_prompt(model, given)
        (where,) = places([position], tokens.shape[1])
        return block_outputs(model, tokens, [layer])[1][layer][0, where].to(model.W_U.device)
