"""What can be said of a metric that was measured on several rows: mean, standard error, intervals, p-values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Statistic = Literal["mean", "median"]
Alternative = Literal["two-sided", "greater", "less"]
Numbers = Float[Tensor, "..."]


class Summary(NamedTuple):
    """A metric over rows, for each cell.

    Attributes:
        mean: over rows.
        standard_error: of the mean.
        low, high: the bootstrap interval of the mean.
    """

    mean: Numbers
    standard_error: Numbers
    low: Numbers
    high: Numbers


def summary(
    values: Float[Tensor, "*cell row"], *, confidence: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> Summary:
    """Mean, standard error and bootstrap interval of each cell, from the metric of each row (as `sweep` gives it).

    Args:
        values: the metric; its last axis runs over rows.
        confidence, n_resamples: as for `bootstrap_ci`.
        seed: of the draws.

    Example:
        >>> summary(torch.tensor([[1.0, 3.0]])).mean
        tensor([2.])
    """
    generator = derive_generator(seed)
    low, high = bootstrap_ci(values, confidence=confidence, n_resamples=n_resamples, generator=generator)
    return Summary(values.mean(-1), standard_error(values), low, high)


def derive_generator(seed: int, *labels: object) -> torch.Generator:
    """A random generator of its own for each seed and labels (the same in every process).

    Example:
        >>> first, again = derive_generator(0, "layer", 3), derive_generator(0, "layer", 3)
        >>> torch.equal(torch.rand(2, generator=first), torch.rand(2, generator=again))
        True
    """
    digest = hashlib.sha256(repr((seed, *labels)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def standard_error(x: Numbers, *, dim: int = -1) -> Numbers:
    """The standard error of the mean along an axis; NaN for a single entry.

    Example:
        >>> standard_error(torch.tensor([1.0, 3.0]))
        tensor(1.)
    """
    rows = x.shape[dim]
    if rows < 2:
        return torch.full_like(x.select(dim, 0), torch.nan)
    error: Tensor = x.std(dim) / rows**0.5
    return error


def bootstrap_ci(
    x: Numbers,
    *,
    dim: int = -1,
    statistic: Statistic = "mean",
    confidence: float = 0.95,
    n_resamples: int = 1000,
    generator: torch.Generator | None = None,
    chunk_size: int = 256,
) -> tuple[Numbers, Numbers]:
    """The lower and upper end of the percentile bootstrap interval along an axis (Efron 1979).

    Args:
        x: numbers.
        dim: the axis that is resampled, with replacement; all others are given the same draws.
        statistic: "mean" or "median" of each resample.
        confidence: the share of resamples that lie inside.
        n_resamples: how many are drawn.
        generator: of the draws; None: torch's own.
        chunk_size: how many resamples are held at once.

    Raises:
        ValueError: a confidence outside 0 and 1, or a statistic that is neither.

    Example:
        >>> low, high = bootstrap_ci(torch.tensor([1.0, 1.0, 1.0]))
        >>> low.item(), high.item()
        (1.0, 1.0)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1; got {confidence}.")
    if statistic not in ("mean", "median"):
        raise ValueError(f'A statistic is "mean" or "median"; got {statistic!r}.')
    values, tail = x.movedim(dim, -1).double(), (1 - confidence) / 2
    rows = values.shape[-1]
    drawn = torch.randint(rows, (n_resamples, rows), generator=generator).to(x.device)
    samples = []
    for chosen in drawn.split(chunk_size):
        resampled = values[..., chosen]  # [..., resample, row]
        samples.append(resampled.mean(-1) if statistic == "mean" else resampled.quantile(0.5, -1))
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64, device=x.device)
    low, high = torch.cat(samples, -1).quantile(ends, -1).to(x.dtype)
    return low, high


def sign_flip_permutation_pvalue(
    effects: Numbers,
    *,
    dim: int = -1,
    n_permutations: int = 1000,
    generator: torch.Generator | None = None,
    alternative: Alternative = "two-sided",
    exact_max_n: int = 12,
) -> Numbers:
    """How often a mean at least as far from 0 arises when the sign of each entry is drawn by chance.

    Args:
        effects: what a change does to the metric.
        dim: the axis of which the mean is taken.
        n_permutations: how many draws; the observed signs count as one more, so that no p-value is 0.
        generator: of the draws; None: torch's own.
        alternative: "two-sided"; "greater": the mean is above 0; "less": it is below.
        exact_max_n: with at most so many entries all signs are tried, and none is drawn.

    Raises:
        ValueError: an alternative that is none of these.

    Example:
        >>> sign_flip_permutation_pvalue(torch.ones(3), alternative="greater")  # one in eight
        tensor(0.1250)
    """
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f'An alternative is "two-sided", "greater" or "less"; got {alternative!r}.')
    values = effects.movedim(dim, -1).double()
    rows = values.shape[-1]
    exact = rows <= exact_max_n
    if exact:
        signs = torch.tensor(list(product((-1.0, 1.0), repeat=rows)), dtype=torch.float64)
    else:
        signs = torch.randint(2, (n_permutations, rows), generator=generator).double() * 2 - 1
    observed, drawn = values.mean(-1, keepdim=True), values @ signs.to(values.device).T / rows
    if alternative == "two-sided":
        observed, drawn = observed.abs(), drawn.abs()
    elif alternative == "less":
        observed, drawn = -observed, -drawn
    slack = 1e-9 * values.abs().amax(-1, keepdim=True)  # sums in another order differ in their last bits
    as_far = (drawn >= observed - slack).sum(-1)
    share = as_far / len(signs) if exact else (as_far + 1) / (len(signs) + 1)
    return share.to(effects.dtype)


@dataclass(frozen=True)
class SuccessRateInterval:
    """A rate of successes with its interval.

    Attributes:
        point_estimate: successes over trials.
        ci_low, ci_high: the ends of the interval.
        n_trials, n_successes: what was counted.
        confidence: of the interval.
    """

    point_estimate: float
    ci_low: float
    ci_high: float
    n_trials: int
    n_successes: int
    confidence: float


def success_rate_ci(successes: Sequence[bool], *, confidence: float = 0.95) -> SuccessRateInterval:
    """The rate of successes with its score interval (Wilson 1927).

    Args:
        successes: whether each trial succeeded.
        confidence: how often such intervals hold the true rate.

    Raises:
        ValueError: there is no trial, or the confidence is not between 0 and 1.

    Example:
        >>> rate = success_rate_ci([True] * 8 + [False] * 2)
        >>> round(rate.ci_low, 2), rate.point_estimate, round(rate.ci_high, 2)
        (0.49, 0.8, 0.94)
    """
    if not successes:
        raise ValueError("There is no trial: give at least one success or failure.")
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1; got {confidence}.")
    trials, won = len(successes), sum(map(bool, successes))
    rate, z = won / trials, NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (rate * (1 - rate) / trials + (z / (2 * trials)) ** 2) ** 0.5
    return SuccessRateInterval(rate, max(0.0, middle - half), min(1.0, middle + half), trials, won, confidence)
