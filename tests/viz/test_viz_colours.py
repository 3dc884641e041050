import numpy as np
import pytest

from transformer_lens.viz.colours import BLUE_TO_RED, BLUES, NO_VALUE, VIRIDIS, ColourScale, colour_scale, ink

matplotlib = pytest.importorskip("matplotlib")


def test_auto_is_diverging_only_when_values_lie_on_both_sides_of_zero():
    assert colour_scale(np.array([-1.0, 3.0]), "auto", None) == ColourScale(BLUE_TO_RED, -3.0, 3.0)
    assert colour_scale(np.array([1.0, 3.0]), "auto", None) == ColourScale(VIRIDIS, 1.0, 3.0)
    assert colour_scale(np.array([-3.0, -1.0]), "auto", None) == ColourScale(VIRIDIS, -3.0, -1.0)


def test_a_scale_for_text_starts_at_zero():
    assert colour_scale(np.array([1.0, 3.0]), "auto", None, on_paper=True) == ColourScale(BLUES, 0.0, 3.0)


def test_nan_and_infinities_do_not_count_for_the_ends():
    values = np.array([np.nan, np.inf, -np.inf, 1.0, 2.0])
    assert colour_scale(values, "auto", None) == ColourScale(VIRIDIS, 1.0, 2.0)


@pytest.mark.parametrize(
    ("values", "ends"), [([0.0, 0.0], (0, 1)), ([2.0, 2.0], (0, 2)), ([-2.0], (-2, 0)), ([np.nan], (0, 1))]
)
def test_equal_values_still_have_a_scale(values, ends):
    scale = colour_scale(np.array(values), "sequential", None)
    assert (scale.low, scale.high) == ends


def test_unknown_scale():
    with pytest.raises(ValueError, match="unknown scale 'rainbow': choose 'auto', 'sequential' or 'diverging'"):
        colour_scale(np.array([1.0]), "rainbow", None)


@pytest.mark.parametrize("limits", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_limits_must_be_in_order(limits):
    with pytest.raises(ValueError, match="two finite numbers in ascending order"):
        colour_scale(np.array([1.0]), "sequential", limits)


def test_a_diverging_scale_stays_centred():
    with pytest.raises(ValueError, match=r"centred at 0: limits must be \(-x, x\), not \(-1.0, 2.0\)"):
        colour_scale(np.array([1.0, -1.0]), "auto", (-1.0, 2.0))


def test_zero_is_nearly_white_and_nan_is_grey_on_a_diverging_scale():
    scale = colour_scale(np.array([-1.0, 1.0]), "diverging", None)
    assert scale.colour(0.0) == "#f7f6f6"
    assert scale.colour(float("nan")) == NO_VALUE
    assert scale.colour(-9.0) == BLUE_TO_RED[0]
    assert scale.colour(9.0) == BLUE_TO_RED[-1]


@pytest.mark.parametrize(("stops", "name"), [(VIRIDIS, "viridis"), (BLUE_TO_RED, "RdBu_r")])
def test_our_stops_are_the_known_scales(stops, name):
    known = matplotlib.colormaps[name]
    for share in np.linspace(0, 1, 101):
        ours = ColourScale(stops, 0.0, 1.0).colour(float(share))
        difference = np.abs(np.array(matplotlib.colors.to_rgb(ours)) - np.array(known(share)[:3])).max()
        assert difference < 0.03, f"{name} at {share}: {ours}"


@pytest.mark.parametrize("stops", [VIRIDIS, BLUES])
def test_lightness_only_grows_or_only_falls(stops):
    def lightness(colour):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    steps = np.diff([lightness(colour) for colour in stops])
    assert (steps > 0).all() or (steps < 0).all()


def test_ink_has_readable_contrast_on_every_colour():
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for stops in (VIRIDIS, BLUES, BLUE_TO_RED):
        for share in np.linspace(0, 1, 101):
            background = ColourScale(stops, 0.0, 1.0).colour(float(share))
            light, dark = sorted((luminance(background), luminance(ink(background))), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 4.0, background
