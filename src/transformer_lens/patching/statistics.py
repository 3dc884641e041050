"""What can be said of a metric that was measured on several rows: mean, standard error, intervals, p-values."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "*cell row"]
PerCell = Float[Tensor, "*cell"]
Statistic = Literal["mean", "median"]
Alternative = Literal["two-sided", "greater", "less"]


class Summary(NamedTuple):
    """A metric over rows, for each cell.

    Attributes:
        mean: over rows.
        standard_error: of the mean.
        low, high: the bootstrap interval of the mean.
    """

    mean: PerCell
    standard_error: PerCell
    low: PerCell
    high: PerCell


def summary(values: Rows, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> Summary:
    """Mean, standard error and bootstrap interval of each cell, from the metric of each row (as `sweep` gives it).

    Args:
        values: the metric; its last axis runs over rows.
        confidence, resamples, seed: as for `bootstrap_interval`.

    Example:
        >>> summary(torch.tensor([[1.0, 3.0]])).mean
        tensor([2.])
    """
    low, high = bootstrap_interval(values, confidence=confidence, resamples=resamples, seed=seed)
    return Summary(values.mean(-1), standard_error(values), low, high)


def standard_error(values: Rows) -> PerCell:
    """The standard error of the mean over the last axis; NaN for a single row.

    Example:
        >>> standard_error(torch.tensor([1.0, 3.0]))
        tensor(1.)
    """
    rows = values.shape[-1]
    if rows < 2:
        return torch.full_like(values[..., 0], torch.nan)
    error: Tensor = values.std(-1) / rows**0.5
    return error


def bootstrap_interval(
    values: Rows, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0, statistic: Statistic = "mean"
) -> tuple[PerCell, PerCell]:
    """The lower and upper end of the percentile bootstrap interval over the last axis (Efron 1979).

    Args:
        values: the metric; its last axis runs over rows. All cells are given the same resampled rows.
        confidence: the share of resamples that lie inside.
        resamples: how many samples of rows are drawn, with replacement.
        seed: of the draws.
        statistic: "mean" or "median" of each sample.

    Raises:
        ValueError: a confidence outside 0 and 1, or a statistic that is neither.

    Example:
        >>> low, high = bootstrap_interval(torch.tensor([1.0, 1.0, 1.0]))
        >>> low.item(), high.item()
        (1.0, 1.0)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1; got {confidence}.")
    if statistic not in ("mean", "median"):
        raise ValueError(f'A statistic is "mean" or "median"; got {statistic!r}.')
    rows, tail = values.shape[-1], (1 - confidence) / 2
    drawn = torch.randint(rows, (resamples, rows), generator=torch.Generator().manual_seed(seed)).to(values.device)
    flat = values.double().reshape(-1, rows)
    if statistic == "mean":
        counts = torch.nn.functional.one_hot(drawn, rows).sum(1).double()
        samples = flat @ counts.T / rows
    else:
        samples = torch.stack([cell[drawn].quantile(0.5, -1) for cell in flat])
    ends = samples.quantile(torch.tensor([tail, 1 - tail], dtype=samples.dtype, device=samples.device), -1)
    low, high = ends.to(values.dtype).reshape(2, *values.shape[:-1])
    return low, high


def sign_flip_p_value(
    differences: Rows, *, permutations: int = 1000, seed: int = 0, alternative: Alternative = "two-sided"
) -> PerCell:
    """How often a mean at least as far from 0 arises when the sign of each row is drawn by chance.

    Args:
        differences: what a change does to the metric; the last axis runs over rows.
        permutations: how many draws; the observed signs count as one more, so that no p-value is 0.
        seed: of the draws.
        alternative: "two-sided"; "greater": the mean is above 0; "less": it is below.

    Raises:
        ValueError: an alternative that is none of these.

    Example:
        >>> sign_flip_p_value(torch.zeros(4)).item()
        1.0
    """
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f'An alternative is "two-sided", "greater" or "less"; got {alternative!r}.')
    rows = differences.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (permutations, rows), generator=generator).to(differences.device).double() * 2 - 1
    observed, drawn = differences.double().mean(-1, keepdim=True), differences.double() @ signs.T / rows
    if alternative == "two-sided":
        observed, drawn = observed.abs(), drawn.abs()
    elif alternative == "less":
        observed, drawn = -observed, -drawn
    at_least = (drawn >= observed - 1e-12).sum(-1) + 1
    return (at_least / (permutations + 1)).to(differences.dtype)
