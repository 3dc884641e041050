"""From the last stream of a wave to the metric of each of its cells, with no logits that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.patching.interventions import Cell, interventions_of
from transformer_lens.patching.metrics import Metric, Reading
from transformer_lens.patching.plain_run import PlainRun, place_of
from transformer_lens.patching.planner import Wave
from transformer_lens.patching.wave import hooked

# What a tensor says of itself without its numbers; `Tensor.shape` and the like are descriptors of C.
_FACTS = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda")),
    *(Tensor.size, Tensor.dim, Tensor.__len__, Tensor.is_floating_point, Tensor.numel),
}


class WaveLogits:
    """The logits of a wave's cells, computed where they are read, many cells at once.

    On its own a cell would only wait for the weights of the unembedding.

    Args:
        run: the plain run; it has the logits of earlier positions.
        cells: of the wave, in their order.
        stream: their last stream, from position `first` on.
        first: see there.
        budget: bytes that logits may take at once.
    """

    def __init__(
        self, run: PlainRun, cells: Sequence[Cell], stream: Float[Tensor, "row pos d_model"], *, first: int, budget: int
    ):
        self.run, self.cells, self.stream, self.first, self.budget = run, cells, stream, first, budget
        changes = chain(run.request.edits, *map(interventions_of, cells))
        places = (place_of(i.hook, run.n_layers) for i in changes)
        self.hooked = run.n_layers in places
        self._kept: dict[tuple[int, ...], tuple[int, Tensor]] = {}

    def of(self, cell: int, positions: Sequence[int]) -> Float[Tensor, "batch pos d_vocab"]:
        """The logits of a cell at these positions."""
        run, key = self.run, tuple(sorted(set(positions)))
        if key != tuple(positions):
            return self.of(cell, key)[:, [key.index(position) for position in positions]]
        later = [position for position in positions if position >= self.first]
        earlier = run.logits[:, [position for position in positions if position < self.first]]
        if not later:
            return earlier
        start, kept = self._kept.get(key, (0, run.logits[:0]))
        if not start <= cell < start + kept.shape[0] // run.batch:
            each = run.batch * len(later) * run.logits.shape[-1] * run.logits.element_size()
            count = max(1, self.budget // each)
            self._kept.pop(key, None)  # before the new ones are made
            start, kept = cell, self._computed(cell, count, later)
            self._kept[key] = start, kept
        at = (cell - start) * run.batch
        logits = kept[at : at + run.batch]
        return torch.cat([earlier, logits], 1) if earlier.shape[1] else logits

    def _computed(self, cell: int, count: int, positions: list[int]) -> Tensor:
        rows = slice(cell * self.run.batch, (cell + count) * self.run.batch)
        stream, chosen = self.stream[rows], [position - self.first for position in positions]
        whole = len(chosen) == stream.shape[1]
        if not self.hooked:
            return self.run.read_out(stream if whole else stream[:, chosen])
        with hooked(self.run, self.cells[cell : cell + count], self.run.n_layers, self.first):
            logits = self.run.read_out(stream)  # hooks count positions, so all of them are there
        return logits if whole else logits[:, chosen]

    def read(self, metric: Reading) -> Float[Tensor, "cell batch"]:
        """A metric that says what it reads, for all cells."""
        run, n_cells = self.run, len(self.cells)
        positions, tokens = metric.positions(run.n_positions), metric.tokens(run.batch)
        if tokens is None or self.hooked:
            return torch.stack([_of_positions(metric, self.of(cell, positions)) for cell in range(n_cells)])
        tokens = tokens.to(self.stream.device)  # [batch, token]
        logits = [
            run.logits[:, position].gather(-1, tokens).expand(n_cells, -1, -1)
            if position < self.first
            else run.read_tokens(self.stream[:, position - self.first], tokens.repeat(n_cells, 1)).unflatten(
                0, (n_cells, run.batch)
            )
            for position in positions
        ]
        return metric.of_logits(torch.stack(logits, -2))


def _of_positions(metric: Reading, logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, "batch"]:
    tokens = metric.tokens(logits.shape[0])
    if tokens is not None:
        logits = logits.gather(-1, tokens.to(logits.device)[:, None].expand(-1, logits.shape[1], -1))
    return metric.of_logits(logits)


class LazyLogits(Tensor):
    """Logits of one cell for a function that does not say what it reads: computed when it takes a part of them.

    `logits[:, -1]` computes the last position alone. Whatever else is done with them computes all of them first, so the
    function cannot tell them from a plain tensor.
    """

    source: WaveLogits
    cell: int

    @staticmethod
    def of(source: WaveLogits, cell: int) -> LazyLogits:
        """The logits of a cell, [batch, pos, d_vocab], none of them computed."""
        lazy: LazyLogits = source.run.logits.new_empty(1).expand(source.run.logits.shape).as_subclass(LazyLogits)
        lazy.source, lazy.cell = source, cell
        return lazy

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """`func` of the logits it needs; of the shape alone where it asks for no number."""
        if func in _FACTS:
            return super().__torch_function__(func, types, args, kwargs or {})
        if func is Tensor.__getitem__ and isinstance(args[0], LazyLogits):
            return args[0].part(args[1])
        return func(*_computed(args), **_computed(kwargs or {}))

    def part(self, index: Any) -> Tensor:
        """The logits at an index."""
        source, n_positions = self.source, self.source.run.n_positions
        if not isinstance(index, tuple) or len(index) < 2 or not isinstance(index[0], int | slice):
            return source.of(self.cell, range(n_positions))[index]
        at = index[1]
        positions: Sequence[int]
        inner: Any
        if isinstance(at, slice) or (isinstance(at, list) and all(isinstance(p, int) for p in at)):
            positions = range(n_positions)[at] if isinstance(at, slice) else [range(n_positions)[p] for p in at]
            inner = slice(None)
        elif isinstance(at, int):
            positions, inner = [range(n_positions)[at]], 0
        else:
            positions, inner = range(n_positions), at
        return source.of(self.cell, positions)[(index[0], inner, *index[2:])]


def _computed(value: Any) -> Any:
    if isinstance(value, LazyLogits):
        with torch._C.DisableTorchFunctionSubclass():
            return value.source.of(value.cell, range(value.source.run.n_positions))
    if isinstance(value, tuple | list):
        return type(value)(_computed(part) for part in value)
    if isinstance(value, dict):
        return {name: _computed(part) for name, part in value.items()}
    return value


def measure(
    run: PlainRun, cells: Sequence[Cell], wave: Wave, stream: Float[Tensor, "row pos d_model"], *, metric: Metric,
    budget: int,
) -> Iterator[Tensor]:  # fmt: skip
    """The metric of each cell of a wave, from its last stream."""
    members = [cells[cell] for _, cell in wave.members]
    logits = WaveLogits(run, members, stream, first=wave.first, budget=budget)
    if isinstance(metric, Reading):
        yield from logits.read(metric)
        return
    for cell in range(len(members)):
        yield torch.as_tensor(metric(LazyLogits.of(logits, cell)))
