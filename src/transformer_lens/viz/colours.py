"""Colour scales that readers with any colour vision can tell apart, and how a value finds its colour."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from transformer_lens.viz.arrays import Json

Scale: TypeAlias = Literal["auto", "sequential", "diverging"]
"""``auto`` is diverging when values lie on both sides of 0, and sequential otherwise."""

Limits: TypeAlias = tuple[float, float]

# fmt: off
VIRIDIS = (
    "#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e", "#21918c", "#1fa088",
    "#28ae80", "#3fbc73", "#5ec962", "#84d44b", "#addc30", "#d8e219", "#fde725",
)
"""Van der Walt and Smith's viridis: even steps of lightness. For maps of many cells."""

BLUES = ("#ffffff", "#deebf7", "#c6dbef", "#9dcae1", "#6aaed6", "#4191c6", "#2070b4", "#08509b", "#08306b")
"""White to dark blue, after ColorBrewer's Blues. For text and attention, where most values are near 0."""

BLUE_TO_RED = (
    "#053061", "#2065ab", "#4393c3", "#90c4dd", "#d1e5f0", "#f7f6f6", "#fddbc7", "#f3a481", "#d6604d", "#b1182b",
    "#67001f",
)
"""ColorBrewer's RdBu reversed: blue below 0, red above."""
# fmt: on

NO_VALUE = "#c9c9c9"
"""The grey of a cell whose value is nan."""

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's colours, without the yellow that white paper swallows."""


@dataclass(frozen=True)
class ColourScale:
    """Colours at equal steps from ``low`` to ``high``; values outside take the colour of the nearer end."""

    stops: tuple[str, ...]
    low: float
    high: float

    def colour(self, value: float) -> str:
        """The colour of a value as ``#rrggbb``; grey for nan.

        >>> ColourScale(("#000000", "#ffffff"), 0.0, 2.0).colour(1.0)
        '#808080'
        """
        if np.isnan(value):
            return NO_VALUE
        place = float(np.clip((value - self.low) / (self.high - self.low), 0, 1)) * (len(self.stops) - 1)
        first = min(int(place), len(self.stops) - 2)
        pairs = zip(_channels(self.stops[first]), _channels(self.stops[first + 1]), strict=True)
        mixed = (int(a + (b - a) * (place - first) + 0.5) for a, b in pairs)
        return "#" + "".join(f"{channel:02x}" for channel in mixed)

    def json(self) -> dict[str, Json]:
        """The scale as the page's script reads it."""
        return {"stops": self.stops, "low": self.low, "high": self.high, "none": NO_VALUE}


def colour_scale(
    values: Float[np.ndarray, "..."], scale: Scale, limits: Limits | None, *, on_paper: bool = False
) -> ColourScale:
    """The colour scale for these values: nan and the infinities do not count for its ends.

    Without ``limits`` a diverging scale reaches equally far below and above 0, so that white is 0. A sequential
    one runs from the least to the greatest value; ``on_paper``, or when all values are the same, it includes 0.

    Args:
        values: what the picture shows.
        scale: the kind that the caller chose.
        limits: the ends that the caller chose, or None.
        on_paper: sequential colours run from white to dark blue (for text), not from dark to bright (for maps).

    Raises:
        ValueError: unknown scale; limits not in order; limits of a diverging scale that are not centred at 0.
    """
    if scale not in ("auto", "sequential", "diverging"):
        raise ValueError(f"unknown scale {scale!r}: choose 'auto', 'sequential' or 'diverging'")
    finite = values[np.isfinite(values)]
    least, greatest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    diverging = scale == "diverging" or (scale == "auto" and least < 0 < greatest)
    if limits is not None:
        low, high = float(limits[0]), float(limits[1])
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError(f"limits must be two finite numbers in ascending order, not {limits}")
        if diverging and low != -high:
            raise ValueError(f"a diverging scale is centred at 0: limits must be (-x, x), not {limits}")
    elif diverging:
        reach = max(abs(least), abs(greatest)) or 1.0
        low, high = -reach, reach
    elif least < greatest and not on_paper:
        low, high = least, greatest
    else:
        low, high = (min(least, 0.0), max(greatest, 0.0)) if least or greatest else (0.0, 1.0)
    sequential = BLUES if on_paper else VIRIDIS
    return ColourScale(BLUE_TO_RED if diverging else sequential, low, high)


def ink(background: str) -> str:
    """Black or white, whichever has the higher contrast on this colour (relative luminance as in WCAG 2).

    >>> ink("#08306b"), ink("#ffffff")
    ('#ffffff', '#111111')
    """
    linear = [(c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for c in _unit(background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#111111" if luminance > 0.18 else "#ffffff"


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _unit(colour: str) -> list[float]:
    return [channel / 255 for channel in _channels(colour)]
