"""Timing several ways of doing the same work against each other, in one run."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Ratio(NamedTuple):
    """What one way costs, over what the base costs.

    `wall` is by the clock; on a machine that others use too it swings. `processor` counts the process's own time on
    all its threads.
    """

    wall: float
    processor: float


def ratios(ways: Mapping[str, Callable[[], object]], base: str, rounds: int = 15) -> dict[str, Ratio]:
    """The median over rounds of each way's time over the base's in the same round; the ways take turns."""
    for run in ways.values():
        run()
    measured: dict[str, list[Ratio]] = {name: [] for name in ways}
    for _ in range(rounds):
        seconds = {name: _seconds(run) for name, run in ways.items()}
        for name, (wall, processor) in seconds.items():
            measured[name].append(Ratio(wall / seconds[base][0], processor / seconds[base][1]))
    return {
        name: Ratio(statistics.median(r.wall for r in runs), statistics.median(r.processor for r in runs))
        for name, runs in measured.items()
    }


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    result = run()
    taken = time.perf_counter() - wall, time.process_time() - processor
    del result
    return taken
