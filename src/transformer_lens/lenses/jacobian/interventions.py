"""Hooks that edit block outputs along lens vectors: steer, ablate, swap, and patch coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.lenses.jacobian.reading import output_name, places
from transformer_lens.lenses.jacobian.sparse import unit_rows
from transformer_lens.weights.subspaces import orthonormal_subspace

Hook = tuple[str, Any]
PARALLEL, NEARLY = 0.999, 0.99
"""Two directions are refused above the first cosine, in size, and warned of above the second."""


def steering_hook(layer: int, vector: Float[Tensor, "d_model"], alpha: float, positions: Sequence[int] | None) -> Hook:
    """Adds alpha times the streams' median norm along a vector."""
    direction = unit_rows(vector)

    def steer(streams: Float[Tensor, "batch pos d_model"], length: int) -> Tensor:
        added: Tensor = alpha * streams.norm(dim=-1).median() * direction.to(streams)
        return streams + added

    return hook(layer, positions, steer)


def ablation_hook(layer: int, vectors: Float[Tensor, "token d_model"], positions: Sequence[int] | None) -> Hook:
    """Projects the span of some vectors out."""
    basis = orthonormal_subspace(unit_rows(vectors).T).basis

    def ablate(streams: Float[Tensor, "batch pos d_model"], length: int) -> Tensor:
        directions = basis.to(streams)
        return streams - streams @ directions @ directions.T

    return hook(layer, positions, ablate)


def swap_hook(
    layer: int,
    pair: Float[Tensor, "2 d_model"],
    alpha: float,
    *,
    positions: Sequence[int] | None,
    clean: Float[Tensor, "batch pos d_model"] | None,
) -> Hook:
    """Moves the coordinates along two vectors to each other's: the stream's own, or those of a clean run.

    Raises:
        ValueError: the two are parallel, or (when it runs) the clean run has another shape.
    """
    cosine = float(torch.cosine_similarity(pair[0], pair[1], dim=0))
    if abs(cosine) > PARALLEL:
        raise ValueError(
            f"The two lens vectors at layer {layer} are parallel (cosine {cosine:.4f}): a stream has no coordinate "
            "along each. Choose tokens further apart."
        )
    if abs(cosine) > NEARLY:
        warnings.warn(
            f"The two lens vectors at layer {layer} are nearly parallel (cosine {cosine:.4f}): coordinates along them "
            "are large, and so is what the swap does.",
            stacklevel=4,
        )
    inverse = torch.linalg.pinv(pair)  # [d_model, 2]: a stream's coordinates
    goal = None if clean is None else _selected(clean, positions).float() @ inverse.to(clean.device)

    def swap(streams: Float[Tensor, "batch pos d_model"], length: int) -> Tensor:
        now = streams @ inverse.to(streams)
        wanted = now if goal is None else goal.to(now)
        if wanted.shape[1] != now.shape[1] or len(wanted) not in (1, len(now)):
            raise ValueError(
                f"clamp_to has {tuple(wanted.shape[:2])} rows and positions at layer {layer}, this run "
                f"{tuple(now.shape[:2])}. Run the clean prompt at the same length, or give positions."
            )
        added: Tensor = alpha * (wanted.flip(-1) - now) @ pair.to(streams)
        return streams + added

    return hook(layer, positions, swap)


def clean_streams(clean: Mapping[str, Tensor], layer: int, d_model: int) -> Float[Tensor, "batch pos d_model"]:
    """A block's output in a cache, under either of its names.

    Raises:
        ValueError: it is not there, or has another shape.
    """
    names = (output_name(layer), f"blocks.{layer}.hook_resid_post")
    for name in names:
        if name in clean:
            found = clean[name]
            if found.ndim != 3 or found.shape[-1] != d_model:
                raise ValueError(f"clamp_to[{name!r}] is [batch, pos, {d_model}]; got {tuple(found.shape)}.")
            return found.detach()
    raise ValueError(f"clamp_to has no {names[0]!r}; cache it: run_with_cache(…, names_filter={names[0]!r}).")


def hook(layer: int, positions: Sequence[int] | None, change: Callable[[Tensor, int], Tensor]) -> Hook:
    """A hook on a block's output that changes it at some positions, in float32 or wider.

    `change` is given what is there, and how many positions run in all.
    """

    def edit(stream: Float[Tensor, "batch pos d_model"], hook: Any) -> Float[Tensor, "batch pos d_model"]:
        chosen = _selected(stream, positions)
        wide = chosen if chosen.dtype == torch.float64 else chosen.float()
        changed = change(wide, stream.shape[1]).to(stream)
        if positions is None:
            return changed
        index = torch.tensor(places(positions, stream.shape[1]), device=stream.device)
        return stream.index_copy(1, index, changed)

    return output_name(layer), edit


def _selected(stream: Float[Tensor, "batch pos d_model"], positions: Sequence[int] | None) -> Tensor:
    return stream if positions is None else stream[:, places(positions, stream.shape[1])]
