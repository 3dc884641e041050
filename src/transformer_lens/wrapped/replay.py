"""Replay: layers of a transformers model run again, alone, on rows that each stand for one change of the same run.

What a layer is called with besides the stream (masks, position embeddings, a cache, …) is never guessed: the model's
own code makes it, in passes whose layers compute nothing, and a replay calls the layer with the same. Passes over one,
two and three copies of the batch show along which axis each argument grows with it (bloom's alibi: batch x heads).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from transformer_lens.errors import TransformerLensError
from transformer_lens.wrapped.host import WrappedHost
from transformer_lens.wrapped.wiring import Stopped

Inputs = dict[str, Any]
COPIES = (1, 2, 3)


class UnknownBatchAxisError(TransformerLensError, RuntimeError):
    """An argument of a layer that changes with the batch in no way that can be told."""


class _Past(DynamicLayer):
    """Keys and values of earlier positions, which new ones are put after and never kept."""

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """All keys and values, the new ones last."""
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)


def past_of(cache: DynamicCache, length: int, copies: int, layer: int | None = None) -> DynamicCache:
    """A cache of the first `length` positions for so many copies of the batch, which does not grow.

    Args:
        cache: the whole run's.
        length: how many positions.
        copies: how many copies of its rows.
        layer: the only layer that is needed; None: all.
    """
    past, first = DynamicCache(), 0 if layer is None else layer
    layers = [_Empty() for _ in range(first)]
    for held in cache.layers[first : None if layer is None else layer + 1]:
        keys, values = (x[..., :length, :].repeat(copies, 1, 1, 1) for x in (held.keys, held.values))
        layers.append(_Past(keys, values))
    past.layers = layers
    return past


class _Empty(DynamicLayer):
    """Holds the place of a layer that is not run."""


@dataclass(frozen=True)
class Calls:
    """What every layer is called with, besides the stream, for rows of a certain shape.

    Attributes:
        layers: for each layer its positional and keyword arguments, for one copy of the batch.
        axes: for each tensor among them (by id), the axis that grows with the batch.
    """

    layers: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]
    axes: Mapping[int, int]
    _rows: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def of(self, layer: int, copies: int, past: Cache | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a layer for so many copies; containers are new, `past` stands for any cache."""
        args, kwargs = self.layers[layer]
        if self._rows and next(iter(self._rows))[1] != copies:
            self._rows.clear()  # rows only grow: those of fewer copies are not asked for again

        def grown(value: Any) -> Any:
            if isinstance(value, Cache):
                return past
            if not isinstance(value, Tensor) or id(value) not in self.axes or copies == 1:
                return value
            if (id(value), copies) not in self._rows:
                times = [1] * value.ndim
                times[self.axes[id(value)]] = copies
                self._rows[id(value), copies] = value.repeat(times)
            return self._rows[id(value), copies]

        return tuple(_mapped(grown, arg) for arg in args), {name: _mapped(grown, arg) for name, arg in kwargs.items()}


class Replay:
    """The layers of a wrapped model, run again on rows beside one run of it.

    Args:
        host: the wrapped model.
        inputs: what the transformers model was called with in that run.
        cache: keys and values of that run; None: layers are run on all positions.
    """

    def __init__(self, host: WrappedHost, inputs: Inputs, cache: DynamicCache | None):
        self.host = host
        self.inputs = inputs
        self.cache = cache
        self._calls: dict[int, Calls] = {}

    def layer(
        self, layer: int, stream: Float[Tensor, "row pos d_model"], first: int, copies: int
    ) -> Float[Tensor, "row pos d_model"]:
        """The stream after a layer, from `first` on; the hooks of that layer see it.

        Args:
            layer: which.
            stream: what enters it, from position `first` on.
            first: the first position that is run.
            copies: how many copies of the batch there are in `stream`.
        """
        past = None if self.cache is None or first == 0 else past_of(self.cache, first, copies, layer)
        args, kwargs = self.calls(first).of(layer, copies, past)
        block = self.host.model.get_submodule(self.host.anatomy.path_of_block(layer))
        with self.host.wired(range(layer, layer + 1)):
            output = block(stream, *args, **kwargs)
        new: Tensor = output[0] if isinstance(output, tuple) else output
        return new

    def calls(self, first: int) -> Calls:
        """What the layers are called with when positions from `first` on are run."""
        if first not in self._calls:
            self._calls[first] = _learned([self._captured(first, copies) for copies in COPIES])
        return self._calls[first]

    def _captured(self, first: int, copies: int) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments of each layer in a pass over `copies` copies in which no layer computes anything."""
        inputs = {
            name: value.repeat(copies, *[1] * (value.ndim - 1)) if isinstance(value, Tensor) else value
            for name, value in self.inputs.items()
            if not isinstance(value, Cache)
        }
        inputs["use_cache"] = False
        if first > 0:
            assert self.cache is not None
            inputs |= {
                name: inputs[name][:, first:]
                for name in ("input_ids", "inputs_embeds", "position_ids")
                if name in inputs
            }
            inputs |= {"past_key_values": past_of(self.cache, first, copies), "use_cache": True}
        seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            without = 0 if args else 1
            seen.append((args[1:], dict(list(kwargs.items())[without:])))

        host, n_layers = self.host, self.host.anatomy.cfg.n_layers
        blocks = [host.model.get_submodule(host.anatomy.path_of_block(layer)) for layer in range(n_layers)]
        with host.skipping(n_layers):
            handles = [block.register_forward_pre_hook(see, with_kwargs=True) for block in blocks]
            try:
                with host.wired(range(0), stop_before=host.path_of_layer(n_layers)):
                    host.model(**inputs)
            except Stopped:
                pass
            finally:
                for handle in handles:
                    handle.remove()
        return seen


def keeps_keys(host: WrappedHost) -> bool:
    """Whether every layer of the model attends, so that earlier positions are there as keys and values.

    A layer with a state (an SSM mixer) has a place of another kind in the cache that transformers makes for the model.
    """
    places = DynamicCache(config=host.model.config).layers
    return all(type(place) in (DynamicLayer, DynamicSlidingWindowLayer) for place in places)


def is_whole(cache: DynamicCache, n_layers: int, length: int) -> bool:
    """Whether the cache holds keys and values of every position at every layer."""
    held = [layer for layer in cache.layers if layer.is_initialized]
    return len(held) == n_layers and all(layer.keys.ndim == 4 and layer.keys.shape[-2] == length for layer in held)


def reproduces(
    replay: Replay,
    streams: Sequence[Float[Tensor, "batch pos d_model"]],
    first: int,
    real: Bool[Tensor, "batch pos"] | None,
) -> bool:
    """Whether layers that are run again on two copies of the run give its own streams.

    Args:
        replay: what runs them.
        streams: the stream entering each layer, and the last one.
        first: the first position that is run again.
        real: which positions are tokens; None: all.
    """
    tolerance = max(1e-4, 20 * torch.finfo(streams[0].dtype).eps)
    for layer, (stream, wanted) in enumerate(pairwise(streams)):
        found = replay.layer(layer, stream[:, first:].repeat(2, 1, 1), first, 2)
        wanted = wanted[:, first:].repeat(2, 1, 1)
        if found.shape != wanted.shape:
            return False
        error = (found - wanted).float().norm(dim=-1) / wanted.float().norm(dim=-1).clamp(min=1e-12)
        counted = error if real is None else error[real[:, first:].repeat(2, 1)]
        if not bool((counted <= tolerance).all()):
            return False
    return True


def _learned(captured: Sequence[list[tuple[tuple[Any, ...], dict[str, Any]]]]) -> Calls:
    axes: dict[int, int] = {}
    for one, two, three in zip(*captured, strict=True):
        _learn(one, two, three, axes)
    return Calls(captured[0], axes)


def _learn(one: Any, two: Any, three: Any, axes: dict[int, int]) -> None:
    if isinstance(one, Cache):
        return
    if isinstance(one, Tensor):
        axis = _batch_axis(one, two, three)
        if axis is not None:
            axes[id(one)] = axis
    elif isinstance(one, list | tuple):
        for parts in zip(one, two, three, strict=True):
            _learn(*parts, axes)
    elif isinstance(one, Mapping):
        for name in one:
            _learn(one[name], two[name], three[name], axes)


def _batch_axis(one: Tensor, two: Any, three: Any) -> int | None:
    same_kind = isinstance(two, Tensor) and isinstance(three, Tensor) and one.ndim == two.ndim == three.ndim
    if same_kind and one.shape == two.shape == three.shape:
        return None
    if same_kind:
        sizes = zip(one.shape, two.shape, three.shape, strict=True)
        growing = [axis for axis, (a, b, c) in enumerate(sizes) if not a == b == c]
        if len(growing) == 1 and [x.shape[growing[0]] for x in (two, three)] == [
            n * one.shape[growing[0]] for n in (2, 3)
        ]:
            return growing[0]
    shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in (one, two, three)]
    raise UnknownBatchAxisError(f"An argument of a layer is {shapes} for one, two and three copies of the batch.")


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """The value with `change` made to what lies in it; lists, tuples and dicts are new ones."""
    if isinstance(value, list):
        return [_mapped(change, part) for part in value]
    if type(value) is tuple:
        return tuple(_mapped(change, part) for part in value)
    if type(value) is dict:
        return {name: _mapped(change, part) for name, part in value.items()}
    return change(value)
