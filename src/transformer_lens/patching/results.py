"""PatchingResult: what a patching study measured, by index, metric and row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from transformer_lens.extras import import_extra
from transformer_lens.patching.statistics import (
    Alternative,
    Statistic,
    bootstrap_ci,
    derive_generator,
    sign_flip_permutation_pvalue,
    standard_error,
)


@dataclass
class PatchingResult:
    """The metric of each patch.

    Attributes:
        values: [metric, patch_type, *index, row]: the axis of metrics is there if `has_metric_axis`, that of patch
            types if `patch_type_names`, that of rows unless `reduced`.
        axis_names: names of the index' axes ("layer", "pos", …; "patch" for a list of patches).
        index: the index of each patch, in the order of `values`.
        index_names: what the entries of an index are.
        metric_names: names of the metrics.
        reduced: whether the rows' metrics were averaged (or the metric gave one number for all).
        baseline: the metric of the run that is patched, before any patch: like `values` without patch types and index.
        has_metric_axis: whether several metrics were asked for by name.
        patch_type_names: names of the kinds of patch, where several were asked for.
    """

    values: Float[Tensor, "*metric_type_index_row"]
    axis_names: list[str]
    index: list[tuple[int, ...]]
    index_names: list[str]
    metric_names: list[str]
    reduced: bool
    baseline: Tensor | None = None
    has_metric_axis: bool = False
    patch_type_names: list[str] | None = None

    @property
    def index_df(self) -> Any:
        """A data frame with the index of each patch in a row (needs pandas)."""
        return frame_of(self.index, self.index_names)

    def __getitem__(self, metric_name: str) -> PatchingResult:
        """The result of one metric.

        Raises:
            KeyError: no metric has this name.
        """
        if metric_name not in self.metric_names:
            raise KeyError(f"{metric_name!r} is no metric of this result: {', '.join(self.metric_names)}.")
        if not self.has_metric_axis:
            return self
        at = self.metric_names.index(metric_name)
        baseline = None if self.baseline is None else self.baseline[at]
        return replace(
            self, values=self.values[at], baseline=baseline, metric_names=[metric_name], has_metric_axis=False
        )

    def mean(self) -> Tensor:
        """The metric averaged over rows."""
        return self.values if self.reduced else self.values.mean(-1)

    def stderr(self) -> Tensor:
        """The standard error of that mean."""
        return standard_error(self._rows("A standard error"))

    def effect(self) -> Tensor:
        """What each patch does to the metric: `values` minus the baseline.

        Raises:
            ValueError: the baseline was not asked for.
        """
        return self.values - self._broadcast(self._baseline())

    def normalized(self, clean_baseline: Tensor) -> Tensor:
        """Each patch's effect as a share of the clean run's: 0 changes nothing, 1 gives the clean metric.

        Args:
            clean_baseline: the metric of the clean run, like `baseline`.
        """
        whole = torch.as_tensor(clean_baseline, device=self.values.device) - self._baseline()
        return self.effect() / self._broadcast(whole)

    def bootstrap_ci(
        self,
        *,
        confidence: float = 0.95,
        n_resamples: int = 1000,
        seed: int = 0,
        statistic: Statistic = "mean",
        of_effect: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The lower and upper ends of bootstrap intervals over rows, of the metric or of the patch's effect on it."""
        rows = self._rows("A bootstrap interval")
        values = self.effect() if of_effect else rows
        return bootstrap_ci(
            values,
            confidence=confidence,
            n_resamples=n_resamples,
            generator=derive_generator(seed),
            statistic=statistic,
        )

    def permutation_pvalue(
        self, *, n_permutations: int = 1000, seed: int = 0, alternative: Alternative = "two-sided"
    ) -> Tensor:
        """The p-value of each patch's effect, by flipping the signs of rows."""
        self._rows("A p-value")
        generator = derive_generator(seed)
        return sign_flip_permutation_pvalue(
            self.effect(), n_permutations=n_permutations, generator=generator, alternative=alternative
        )

    def to_dataframe(self) -> Any:
        """A data frame with one row for each metric, patch type, patch and row of the batch (needs pandas)."""
        metrics: list[str | None] = [*self.metric_names] if self.has_metric_axis else [None]
        kinds: list[str | None] = [None] if self.patch_type_names is None else [*self.patch_type_names]
        rows: list[int | None] = [None] if self.reduced else [*range(self.values.shape[-1])]
        records = product(metrics, kinds, self.index, rows)
        table = []
        for (metric, kind, index, row), value in zip(records, self.values.flatten().tolist(), strict=True):
            named = {"metric": metric, "patch_type": kind, **dict(zip(self.index_names, index, strict=True))}
            table.append({k: v for k, v in {**named, "row": row, "value": value}.items() if v is not None})
        return _pandas().DataFrame(table)

    def _rows(self, what: str) -> Tensor:
        if self.reduced:
            raise ValueError(f'{what} needs the metric of each row: patch with reduce="none".')
        return self.values

    def _baseline(self) -> Tensor:
        if self.baseline is None:
            raise ValueError("The effect of a patch needs the metric without it: patch with baseline=True.")
        return self.baseline

    def _broadcast(self, baseline: Tensor) -> Tensor:
        """A baseline [metric, row] with axes for patch types and the index in between."""
        between = self.values.ndim - baseline.ndim
        at = 1 if self.has_metric_axis else 0
        return baseline[(*[slice(None)] * at, *[None] * between)]


def frame_of(index: Sequence[Sequence[int]], names: Sequence[str]) -> Any:
    """A data frame of indices (needs pandas)."""
    return _pandas().DataFrame([list(row) for row in index], columns=list(names))


def make_df_from_ranges(column_max_ranges: Sequence[int], column_names: Sequence[str]) -> Any:
    """A data frame with a row for each combination of 0, 1, … below each column's limit (needs pandas).

    Raises:
        ValueError: as many limits as names are needed.

    Example:
        >>> make_df_from_ranges([2, 2], ["layer", "pos"]).to_numpy().tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    if len(column_max_ranges) != len(column_names):
        raise ValueError(f"There are {len(column_max_ranges)} limits for {len(column_names)} columns.")
    return frame_of(list(product(*map(range, column_max_ranges))), column_names)


def _pandas() -> Any:
    return import_extra("pandas", "A data frame", "pandas")
