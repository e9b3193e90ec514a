"""Lengths and neighborhoods are in pixels of the finest axis, in any unit of spacing."""

import numpy as np
import pytest

from hybridseg.space import (
    nearest_valid,
    pixel_sides,
    settled,
    width_in_pixels,
    width_in_unit,
    widths_in_pixels,
)

UNITS = [1e-6, 25.4, 1000.0, 2.0**12]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.3), (3.0, 0.9, 0.9)])
def test_sides_count_from_the_shortest_and_know_no_unit(spacing, unit):
    sides = pixel_sides(spacing, len(spacing))
    assert min(sides) == 1
    assert sides == pytest.approx([step / min(spacing) for step in spacing], rel=1e-11)
    assert pixel_sides([step * unit for step in spacing], len(spacing)) == sides


def test_one_number_or_none_is_for_all_axes():
    assert pixel_sides(None, 3) == pixel_sides(7.5, 3) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="spacing="):
        pixel_sides((1, 2, 3), 2)


@pytest.mark.parametrize("unit", UNITS)
def test_widths_are_in_the_unit_of_spacing(unit):
    spacing = (1.5 * unit, 0.5 * unit)
    assert width_in_pixels(2.0 * unit, "w", spacing, 2, auto=9.0) == 4.0
    assert width_in_pixels("auto", "w", spacing, 2, auto=9.0) == 9.0
    assert width_in_unit("auto", "w", spacing, 2, auto=9.0) == pytest.approx(4.5 * unit)
    assert width_in_unit(3.0, "w", spacing, 2, auto=9.0) == 3.0
    found = widths_in_pixels((unit, 4 * unit), "ws", spacing, 2, auto=(1.0, 2.0))
    assert found == (2.0, 8.0)
    assert widths_in_pixels("auto", "ws", spacing, 2, auto=(1.0, 2.0)) == (1.0, 2.0)


def test_bad_widths_are_named():
    for call in (width_in_pixels, width_in_unit):
        with pytest.raises(ValueError, match="w='wide'; expected 'auto' or a number"):
            call("wide", "w", None, 2, auto=1.0)
    with pytest.raises(ValueError, match="w=-1"):
        width_in_pixels(-1, "w", None, 2, auto=1.0)
    assert width_in_pixels(0, "w", None, 2, auto=1.0) == 0
    with pytest.raises(ValueError, match="w=0"):
        width_in_pixels(0, "w", None, 2, auto=1.0, zero=False)
    with pytest.raises(ValueError, match="ws='wide'; expected 'auto' or a sequence"):
        widths_in_pixels("wide", "ws", None, 2, auto=(1.0,))
    with pytest.raises(TypeError, match=r"ws=2.0 is of type float; .* such as \(2.0,\)"):
        widths_in_pixels(2.0, "ws", None, 2, auto=(1.0,))
    with pytest.raises(ValueError, match="ws=0"):
        widths_in_pixels((1.0, 0), "ws", None, 2, auto=(1.0,))
    with pytest.raises(TypeError, match="ws='auto' is of type str; expected a number"):
        widths_in_pixels((1.0, "auto"), "ws", None, 2, auto=(1.0,))  # alone, not in a list


@pytest.mark.parametrize("spacing", [None, (3.0, 1.0), (1.0, 2.5)])
def test_the_nearest_valid_pixel_is_found_as_by_hand(rng, spacing):
    valid = rng.random((7, 9)) < 0.3
    places = nearest_valid(valid, spacing)
    steps = np.array((1.0, 1.0) if spacing is None else spacing)
    there = np.argwhere(valid)
    for place in np.ndindex(valid.shape):
        found = np.array([axis[place] for axis in places])
        assert valid[tuple(found)]
        least = np.hypot.reduce((there - place) * steps, axis=1).min()
        assert np.hypot.reduce((found - place) * steps) == pytest.approx(least)


@pytest.mark.parametrize("value", [True, False])
def test_there_may_be_nothing_to_fill_or_nothing_to_fill_it_with(value):
    assert nearest_valid(np.full((3, 4), value), None) is None


def test_numbers_that_rounding_sets_apart_become_one():
    assert settled(2.5) == settled(2540 / 1016) == settled(2.5 * (1 + 1e-14)) == 2.5
    assert settled(2.5 * (1 + 1e-10)) != 2.5
    assert settled(0.1 + 0.2) == 0.3
