"""A sweep: the same run with a thousand different changes, in a few passes.

A cell's run differs from the plain one only from the first layer and the first position that it changes. So cells are
grouped by that position; within a group a wave moves up the layers, and each cell joins it, as a row of the batch, at
the first layer it touches. Earlier positions are there as keys and values of the plain run. The numbers are those of
one run for each cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from transformer_lens.hooks import HookPoint
from transformer_lens.hooks.names import layer_of
from transformer_lens.native.frame import Frame
from transformer_lens.native.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.patching.interventions import Cell, Intervention, interventions_of
from transformer_lens.patching.metrics import LogitDifference, Metric

LOGITS_AT_ONCE = 50_000_000  # numbers: 200 MB in float32


@dataclass(frozen=True)
class Plan:
    """How a sweep will run.

    Attributes:
        cells: how many cells there are.
        unchanged: the cells that change nothing; they have the plain run's metric.
        groups: first changed position -> pairs (first changed layer, cell), by layer.
        layer_rows: rows times positions times layers that run, the batch counted.
        loop_rows: the same for one whole run for each cell.
    """

    cells: int
    unchanged: list[int]
    groups: dict[int, list[tuple[int, int]]]
    layer_rows: int
    loop_rows: int

    def describe(self) -> str:
        """The plan in a sentence."""
        saved = self.loop_rows / max(self.layer_rows, 1)
        return (
            f"{self.cells} cells, {len(self.unchanged)} of which change nothing, in {len(self.groups)} waves: "
            f"layers run on {self.layer_rows:,} tokens, in a loop over cells on {self.loop_rows:,} ({saved:.1f} x)."
        )


@dataclass
class _Plain:
    """The run that all cells change: its streams, keys, values, hooked activations and logits."""

    cache: dict[str, Tensor]
    past: TransformerLensKeyValueCache
    logits: Float[Tensor, "batch pos d_vocab"]
    mask: Tensor | None

    @property
    def n_positions(self) -> int:
        return self.logits.shape[1]


@torch.no_grad()
def sweep(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    cells: Sequence[Cell],
    metric: Metric,
    *,
    max_rows: int = 256,
    verbose: bool = False,
) -> Float[Tensor, "cell *batch"]:
    """The metric of the run of `tokens` with each cell's changes made, one after the other.

    Args:
        model: a HookedTransformer with causal attention.
        tokens: what is run.
        cells: interventions inside the blocks, each alone or several at once.
        metric: a function of logits [batch, pos, d_vocab] that gives a number, or one for each row; a `LogitDifference`
            is cheaper.
        max_rows: how many rows a batch may have.
        verbose: show a progress bar.

    Raises:
        UnknownNameError: a hook point that the model does not have.
        ValueError: attention is not causal, or a hook point is not inside a block.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> cells = [Intervention(f"blocks.{layer}.attn.hook_z", "zero", head=0) for layer in range(4)]
        >>> paris = LogitDifference(model.to_single_token(" Paris"))
        >>> sweep(model, model.to_tokens("The Eiffel Tower is in"), cells, paris).shape
        torch.Size([4, 1])
    """
    plain = _run_plain(model, tokens, cells)
    plan = _plan(model, plain, cells)
    results: list[Tensor | None] = [None] * len(cells)
    for cell in plan.unchanged:
        results[cell] = metric(plain.logits)
    batch = tokens.shape[0]
    with tqdm(total=len(cells) - len(plan.unchanged), disable=not verbose, leave=False) as bar:
        for first, members in plan.groups.items():
            size = max(1, max_rows // batch)
            for start in range(0, len(members), size):
                wave = members[start : start + size]
                stream = _run_wave(model, plain, cells, first, wave)
                for (_, cell), result in zip(wave, _measure(model, plain, metric, stream, first), strict=True):
                    results[cell] = result
                bar.update(len(wave))
    return torch.stack([result for result in results if result is not None])


@torch.no_grad()
def plan(model: Any, tokens: Int[Tensor, "batch pos"], cells: Sequence[Cell]) -> Plan:
    """How `sweep` would run these cells; costs one run of the model."""
    return _plan(model, _run_plain(model, tokens, cells), cells)


def _run_plain(model: Any, tokens: Tensor, cells: Sequence[Cell]) -> _Plain:
    if model.cfg.attention_dir != "causal":
        raise ValueError("A sweep reruns only later positions, which needs causal attention.")
    hooks = {i.hook for cell in cells for i in interventions_of(cell)}
    outside = sorted(hook for hook in hooks if layer_of(hook) is None)
    if outside:
        raise ValueError(f"A sweep changes activations inside blocks; {', '.join(outside)} is outside.")
    streams = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.cfg.n_layers)]
    past = TransformerLensKeyValueCache.init_cache(model.cfg, tokens.device, tokens.shape[0])
    names = list(dict.fromkeys([*streams, *sorted(hooks)]))
    logits, cache = model.run_with_cache(tokens, names_filter=names, past_kv_cache=past, return_cache_object=False)
    mask = past.previous_attention_mask
    return _Plain(cache, past, logits, None if bool(mask.all()) else mask)


def _plan(model: Any, plain: _Plain, cells: Sequence[Cell]) -> Plan:
    groups: dict[int, list[tuple[int, int]]] = {}
    unchanged = []
    for number, cell in enumerate(cells):
        changes = [(i, _first_change(i, plain)) for i in interventions_of(cell)]
        moved = [(i, position) for i, position in changes if position is not None]
        if not moved:
            unchanged.append(number)
            continue
        layer = min(layer_of(i.hook) or 0 for i, _ in moved)
        groups.setdefault(min(position for _, position in moved), []).append((layer, number))
    batch, length, n_layers = plain.logits.shape[0], plain.n_positions, model.cfg.n_layers
    rows = sum((n_layers - layer) * (length - first) for first, members in groups.items() for layer, _ in members)
    ordered = {first: sorted(members) for first, members in sorted(groups.items())}
    return Plan(len(cells), unchanged, ordered, batch * rows, batch * len(cells) * n_layers * length)


def _first_change(intervention: Intervention, plain: _Plain) -> int | None:
    """The first position at which the value differs from the plain run's; None if none does."""
    positions = intervention.positions(plain.n_positions)
    if callable(intervention.value):
        return positions[0]
    part = plain.cache[intervention.hook][intervention.index(positions)]
    value = intervention.new_value(part, positions)
    # Another run differs in the last bits also where nothing changed; a value that is given counts as it is.
    noise = 1e-5 * float(part.abs().max()) if isinstance(intervention.value, Mapping) and part.numel() else 0.0
    differs = (value - part).abs() > noise
    found = differs.movedim(intervention.position_axis, 0).flatten(1).any(1).nonzero()
    return positions[int(found[0])] if len(found) else None


class _Prefix:
    """Keys and values of the plain run before a position, in front of those of each row."""

    def __init__(self, keys: Tensor, values: Tensor, length: int):
        self.keys, self.values, self.length = keys[:, :length], values[:, :length], length

    def append(self, new_keys: Tensor, new_values: Tensor) -> tuple[Tensor, Tensor]:
        copies = new_keys.shape[0] // self.keys.shape[0]
        earlier = (x.repeat(copies, 1, 1, 1) for x in (self.keys, self.values))
        keys, values = (torch.cat([old, new], 1) for old, new in zip(earlier, (new_keys, new_values), strict=True))
        return keys, values


def _run_wave(
    model: Any, plain: _Plain, cells: Sequence[Cell], first: int, wave: Sequence[tuple[int, int]]
) -> Float[Tensor, "row pos d_model"]:
    """The last stream from position `first` on, of all cells of a wave (batch rows of a cell lie together)."""
    n_layers, length = model.cfg.n_layers, plain.n_positions
    batch = plain.logits.shape[0]
    stream = plain.logits.new_empty(0, length - first, model.cfg.d_model)
    joined = 0
    for layer in range(wave[0][0], n_layers):
        new = sum(start == layer for start, _ in wave)
        if new:
            entering = plain.cache[f"blocks.{layer}.hook_resid_pre"][:, first:]
            stream = torch.cat([stream, entering.repeat(new, 1, 1)])
            joined += new
        frame = _frame(plain, first, joined)
        entry = plain.past[layer]
        hooks = _hooks(cells, wave[:joined], layer, batch, first, length)
        prefix: list[Any] = [None] * n_layers
        prefix[layer] = _Prefix(entry.past_keys, entry.past_values, first)
        with model.hooks(fwd_hooks=hooks):
            position = model.position_beside(frame, stream.shape[0])
            stream = model.run_blocks(stream, frame, position, prefix, slice(layer, layer + 1))
    return stream


def _frame(plain: _Plain, first: int, copies: int) -> Frame:
    length = plain.n_positions - first
    mask = None if plain.mask is None else plain.mask.repeat(copies, 1)
    return Frame.make(length, plain.logits.device, mask, first)


def _hooks(
    cells: Sequence[Cell], wave: Sequence[tuple[int, int]], layer: int, batch: int, first: int, length: int
) -> list[tuple[str, Callable[..., Tensor]]]:
    """For each hook point of a layer that some cell changes, a hook that changes the rows of those cells."""
    by_hook: dict[str, list[tuple[int, Intervention]]] = {}
    for row, (_, number) in enumerate(wave):
        for intervention in interventions_of(cells[number]):
            if layer_of(intervention.hook) == layer:
                by_hook.setdefault(intervention.hook, []).append((row * batch, intervention))

    def changing(changes: list[tuple[int, Intervention]]) -> Callable[..., Tensor]:
        def change(activation: Tensor, hook: HookPoint) -> Tensor:
            for row, intervention in changes:
                positions = intervention.positions(length)
                skipped = sum(p < first for p in positions)
                here = (slice(row, row + batch), *intervention.index(positions[skipped:], first)[1:])
                activation[here] = intervention.new_value(activation[here], positions, skipped)
            return activation

        return change

    return [(hook, changing(changes)) for hook, changes in by_hook.items()]


def _measure(
    model: Any, plain: _Plain, metric: Metric, stream: Float[Tensor, "row pos d_model"], first: int
) -> Iterator[Tensor]:
    """The metric of each cell, from the last stream of its rows."""
    batch, _, d_vocab = plain.logits.shape
    if isinstance(metric, LogitDifference):
        position = range(plain.n_positions)[metric.pos]
        if position < first:
            yield from (metric(plain.logits) for _ in range(stream.shape[0] // batch))
            return
        tokens = metric.tokens(batch).repeat(stream.shape[0] // batch, 1)
        yield from metric.of_tokens(model.logits_of(stream[:, position - first], tokens)).split(batch)
        return
    # One matmul unembeds many cells: on its own, a cell with few positions would only wait for the weights.
    cells_at_once = max(1, LOGITS_AT_ONCE // (batch * stream.shape[1] * d_vocab))
    for rows in stream.split(cells_at_once * batch):
        for logits in model.logits(rows).split(batch):
            yield metric(torch.cat([plain.logits[:, :first], logits], 1))
