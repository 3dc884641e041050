"""Timing two or more ways of doing the same work against each other, in one run."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int = 15, warmup: int = 2) -> dict[str, float]:
    """Median seconds of each way, taken in turns, so that a busy machine slows all of them alike."""
    for _ in range(warmup):
        for run in ways.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def ratios(ways: Mapping[str, Callable[[], object]], base: str, rounds: int = 15) -> dict[str, float]:
    """Time of each way over that of `base`: the median over rounds of the ratio within a round."""
    for run in ways.values():
        run()
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        seconds = {}
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[name] = time.perf_counter() - start
        for name in ways:
            measured[name].append(seconds[name] / seconds[base])
    return {name: statistics.median(values) for name, values in measured.items()}
