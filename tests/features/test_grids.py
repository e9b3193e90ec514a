"""Grids of cells cover every pixel once; their number and shape come close to what is asked."""

import math

import numpy as np
import pytest

from hybridseg.features.grids import (
    grid_inside,
    implied_ndim,
    make_grid,
    pixels_of_cells,
    valid_part,
)


def n_cells(grid):
    return math.prod(len(bounds) - 1 for bounds in grid.bounds)


@pytest.mark.parametrize("wanted", [1, 2, 7, 30, 200, 10**6])
@pytest.mark.parametrize(
    "shape", [(1, 24, 36), (1, 1, 50), (6, 20, 22), (1, 1, 1), (3, 100, 5), (2, 1, 9)]
)
def test_cells_part_the_pixels_evenly(shape, wanted):
    grid = make_grid(shape, (1.0, 1.0, 1.0), wanted)
    for bounds, size in zip(grid.bounds, shape, strict=True):
        assert (bounds[0], bounds[-1]) == (0, size)
        sizes = np.diff(bounds)
        assert sizes.min() >= 1
        assert np.ptp(sizes) <= 1
    numbers = grid.numbers()
    assert numbers.shape == shape
    assert numbers.ravel()[0] == 0
    counts = np.bincount(numbers.ravel())
    assert len(counts) == n_cells(grid)
    np.testing.assert_array_equal(counts, pixels_of_cells(np.ones(shape, bool), grid).ravel())
    if wanted >= math.prod(shape):
        assert n_cells(grid) == math.prod(shape)


@pytest.mark.parametrize("wanted", [20, 60, 150])
def test_there_are_about_as_many_as_wanted_and_they_are_nearly_cubes(wanted):
    grid = make_grid((1, 120, 180), (1.0, 1.0, 1.0), wanted)
    assert n_cells(grid) == pytest.approx(wanted, rel=0.2)
    rows, columns = (np.diff(grid.bounds[axis]).mean() for axis in (1, 2))
    assert 0.7 < rows / columns < 1.4
    step = math.sqrt(rows * columns)
    np.testing.assert_allclose(grid.pixel_steps[1:], 1 / step, rtol=0.02)


def test_longer_pixels_make_fewer_of_them_in_a_cell():
    square = make_grid((1, 60, 60), (1.0, 1.0, 1.0), 36)
    tall = make_grid((1, 60, 60), (1.0, 3.0, 1.0), 36)
    assert len(tall.bounds[1]) > len(square.bounds[1])
    assert len(tall.bounds[2]) < len(square.bounds[2])
    assert tall.pixel_steps[1] == pytest.approx(3 * tall.pixel_steps[2])
    # along an axis whose pixels are longer than cells, each pixel is a cell
    assert len(make_grid((1, 10, 60), (1.0, 50.0, 1.0), 40).bounds[1]) - 1 == 10


def test_the_side_along_an_axis_of_one_pixel_does_not_matter():
    for side in (1e-3, 1.0, 1e3):
        grid = make_grid((1, 20, 30), (side, 1.0, 1.0), 12)
        expected = make_grid((1, 20, 30), (1.0, 1.0, 1.0), 12)
        for found, bounds in zip(grid.bounds, expected.bounds, strict=True):
            np.testing.assert_array_equal(found, bounds)
        np.testing.assert_array_equal(grid.pixel_steps, expected.pixel_steps)


@pytest.mark.parametrize("wanted", [5, 20, 80])
def test_a_mask_gets_about_as_many_cells_as_wanted(wanted):
    rows, columns = np.indices((90, 120))
    disk = (np.hypot(rows - 45, columns - 50) < 40)[np.newaxis]
    grid = grid_inside(disk, (1.0, 1.0, 1.0), wanted)
    held = pixels_of_cells(disk, grid)
    scrap = 0.05 * disk.sum() / wanted
    assert np.count_nonzero(held >= scrap) == pytest.approx(wanted, rel=0.25)
    assert held.sum() == disk.sum()


def test_as_many_cells_as_valid_pixels_are_one_pixel_each():
    inside = np.zeros((1, 6, 7), bool)
    inside[0, 2:4, 1:6] = True
    assert n_cells(grid_inside(inside, (1.0, 1.0, 1.0), 10)) == inside.size
    assert n_cells(grid_inside(inside, (1.0, 1.0, 1.0), 9)) < inside.size


def test_pixels_of_cells_counts_by_hand(rng):
    inside = rng.random((4, 11, 13)) < 0.4
    grid = make_grid(inside.shape, (1.0, 1.0, 1.0), 12)
    expected = np.bincount(grid.numbers()[inside], minlength=n_cells(grid))
    np.testing.assert_array_equal(pixels_of_cells(inside, grid).ravel(), expected)


def test_what_is_seen_is_the_box_around_the_valid_pixels(rng):
    image = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    valid = np.zeros((9, 12), bool)
    valid[2:6, 3:8] = True
    known = {"intensity_range": "dtype", "spatial_ndim": None}
    seen = valid_part(image, spacing=(2.0, 1.0), valid=valid, **known)
    np.testing.assert_array_equal(seen.colors, image[2:6, 3:8])
    assert (seen.inside, seen.sides, seen.n_valid) == (None, (2.0, 1.0), 20)
    spread = seen.on_whole_image(np.arange(20, dtype=np.int32))
    np.testing.assert_array_equal(spread[valid], np.arange(20))
    assert (spread[~valid] == -1).all()
    valid[3, 4] = False
    holed = valid_part(image, spacing=None, valid=valid, **known)
    assert holed.n_valid == 19
    np.testing.assert_array_equal(holed.inside, valid[2:6, 3:8])
    assert (holed.colors[1, 1] == 0).all()
    nothing = valid_part(image, spacing=None, valid=np.zeros((9, 12), bool), **known)
    assert nothing.n_valid == 0
    assert (nothing.empty_map() == -1).all()
    assert nothing.empty_map().shape == (9, 12)
    whole = valid_part(image, spacing=None, valid=None, **known)
    assert whole.n_valid == 108
    assert whole.on_whole_image(np.zeros((9, 12), np.int32)).shape == (9, 12)


def test_the_rank_is_read_from_the_mask_or_the_spacing():
    assert implied_ndim((1, 2, 3), None) == 3
    assert implied_ndim((1, 2), None) == 2
    assert implied_ndim((1, 2), np.ones((2, 2, 2), bool)) == 3
    for silent in (None, 2.0, (2.0,), (1, 2, 3, 4)):
        assert implied_ndim(silent, None) is None
