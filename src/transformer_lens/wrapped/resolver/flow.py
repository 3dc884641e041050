"""The residual stream of one block, read off values: what is added to it, in which order, by which modules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transformer_lens.wrapped.resolver.probe import Call, Probe

NORM = re.compile(r"norm|^ln|rms|scalenorm", re.IGNORECASE)
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


@dataclass
class Write:
    """A module's output, added to the stream.

    Attributes:
        call: the outermost call whose output it is.
        times: what it is multiplied by first.
        base: the stream before: an index into `Flow.streams`.
    """

    call: Call
    times: float
    base: int


@dataclass
class Stream:
    """The stream at one place of a block.

    Attributes:
        value: its value in the probe.
        norm: the norm that made it (post-norm blocks); None: a sum.
        writes: what was added to make it.
    """

    value: Tensor
    norm: Call | None = None
    writes: tuple[Write, ...] = ()


@dataclass
class Flow:
    """What is known of the stream in one block.

    Attributes:
        block: the call of the block.
        streams: its places in order; the first is the block's input.
        reads: index of a norm's call -> the place it reads.
        posts: index of a norm's call -> the call whose output it normalises before it is added.
        last: the place that leaves the block; None: how the output comes about is not known.
    """

    block: Call
    streams: list[Stream] = field(default_factory=list)
    reads: dict[int, int] = field(default_factory=dict)
    posts: dict[int, Call] = field(default_factory=dict)
    last: int | None = None

    @property
    def writes(self) -> list[Write]:
        """All that is added, in order."""
        return [write for stream in self.streams for write in stream.writes]


def is_norm(call: Call) -> bool:
    """Whether a module looks like a norm: it keeps the shape, has vectors only, and is called one."""
    if call.given is None or call.made is None or call.given.shape != call.made.shape:
        return False
    if list(call.module.children()) or not NORM.search(f"{call.kind} {call.leaf}"):
        return False
    return all(
        parameter.ndim <= 1 or parameter.numel() == max(parameter.shape) for parameter in call.module.parameters()
    )


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors hold the same values up to rounding, whatever their shapes."""
    if one is None or other is None or one.numel() != other.numel() or not one.is_floating_point():
        return False
    if one.device != other.device or not other.is_floating_point():
        return False
    one, other = one.reshape(-1), other.reshape(-1)
    return bool((one - other).abs().max() <= tolerance(one) * other.abs().max().clamp(min=1e-6))


def tolerance(tensor: Tensor) -> float:
    """The rounding to reckon with, relative to the largest entry."""
    return TOLERANCE.get(tensor.dtype, 1e-2)


def flow_of(probe: Probe, block: Call, factors: Sequence[float] = ()) -> Flow:
    """The stream of one block.

    Args:
        probe: the pass.
        block: the call of the block.
        factors: numbers of the configuration by which outputs may be multiplied.
    """
    flow = Flow(block)
    if block.given is None or block.made is None:
        return flow
    flow.streams.append(Stream(block.given))
    inner = probe.within(block)
    for call in inner:
        if call.given is None or call.given.numel() != block.given.numel() or not call.given.is_floating_point():
            continue
        if is_norm(call):
            _read(probe, flow, call, factors)
        elif call.inside[-1] == block.index and not _is_known(probe, flow, call):
            _explain(probe, flow, call.given, call.index, factors)
    flow.last = _place(flow, block.made)
    if flow.last is None:
        flow.last = _explain(probe, flow, block.made, len(probe.calls), factors)
    return flow


def _place(flow: Flow, value: Tensor) -> int | None:
    for index in reversed(range(len(flow.streams))):
        if same(value, flow.streams[index].value):
            return index
    return None


def _is_known(probe: Probe, flow: Flow, call: Call) -> bool:
    """Whether what a call was given is the stream at a known place, or what another call made."""
    assert call.given is not None
    made = any(same(other.made, call.given) for other in _ended(probe, flow, call.index))
    return made or _place(flow, call.given) is not None


def _read(probe: Probe, flow: Flow, norm: Call, factors: Sequence[float]) -> None:
    """Note what a norm reads: the stream, or the output of a module."""
    assert norm.given is not None
    place = _place(flow, norm.given)
    if place is None:
        place = _explain(probe, flow, norm.given, norm.index, factors)
    if place is not None:
        flow.reads[norm.index] = place
        if flow.streams[place].writes and flow.streams[place].norm is None:
            assert norm.made is not None
            flow.streams.append(Stream(norm.made, norm=norm))
        return
    source = next((call for call in _ended(probe, flow, norm.index) if same(call.made, norm.given)), None)
    if source is not None:
        flow.posts[norm.index] = source


def _ended(probe: Probe, flow: Flow, before: int) -> list[Call]:
    """Calls inside the block that are over when call number `before` begins, outermost first."""
    size = flow.streams[0].value.numel()
    return [
        call
        for call in probe.within(flow.block)
        if call.end <= before and call.index < before and call.made is not None and call.made.numel() == size
        and call.made.is_floating_point()
    ]  # fmt: skip


def _explain(probe: Probe, flow: Flow, value: Tensor, before: int, factors: Sequence[float]) -> int | None:
    """A new place of the stream with this value: an earlier one, and the outputs of modules, added up."""
    reading = {index for index, place in flow.reads.items() if not flow.streams[place].writes}
    pool = [call for call in _ended(probe, flow, before) if call.index not in reading]
    pool = [call for call in pool if not same(call.made, value)]
    distinct: list[Call] = []
    for call in pool:
        if not any(same(call.made, other.made) for other in distinct):
            distinct.append(call)
    outer = [call for call in distinct if not any(other.index in call.inside for other in distinct)]
    for candidates in (outer, distinct):
        for base in reversed(range(len(flow.streams))):
            fresh = [call for call in candidates if not any(same(call.made, s.value) for s in flow.streams)]
            found = _sum(value - flow.streams[base].value.reshape(value.shape), fresh, factors)
            if found:
                writes = tuple(Write(call, times, base) for call, times in found)
                flow.streams.append(Stream(value, writes=writes))
                return len(flow.streams) - 1
    return None


def _sum(difference: Tensor, calls: list[Call], factors: Sequence[float]) -> list[tuple[Call, float]]:
    """The calls whose outputs, each times a number, add up to a difference; empty: none do."""
    if not calls or len(calls) > 24:
        return []
    target = difference.reshape(-1).double()
    rows = torch.stack([call.made.reshape(-1).double() for call in calls if call.made is not None], 1)
    size = target.abs().max()
    if not bool(size > 0) or not bool(torch.isfinite(rows).all()):
        return []
    near = tolerance(difference) * 4
    for chosen in [[number] for number in range(len(calls))] + [list(range(len(calls)))]:
        some = rows[:, chosen]
        weights = torch.linalg.lstsq(some, target[:, None]).solution[:, 0]
        if bool((some @ weights - target).abs().max() <= near * max(float(size), float(some.abs().max()))):
            times = [_snap(float(weight), near, factors) for weight in weights]
            kept = [(calls[number], time) for number, time in zip(chosen, times, strict=True) if abs(time) > near]
            if kept and len(kept) <= 4:
                return kept
    return []


def _snap(weight: float, near: float, factors: Sequence[float]) -> float:
    """A factor found by fitting, as the number that was meant."""
    for number in (1.0, *factors):
        if number and abs(weight - number) <= 8 * near * abs(number):
            return number
    return weight
