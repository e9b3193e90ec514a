"""Boxes around masks, and boxes that divide an image evenly."""

import numpy as np
import pytest

from hybridseg.features.boxes import bounding_box, boxes


@pytest.mark.parametrize(
    ("shape", "spacing", "n_pixels"),
    [
        ((7, 9), (1.0, 1.0), 100),
        ((37, 101), (1.0, 1.0), 200),
        ((37, 101), (5.0, 1.0), 200),
        ((11, 13, 17), (3.0, 1.0, 1.0), 60),
        ((1, 50), (1.0, 1.0), 1),
        ((5, 6), (1.0, 1.0), 1),
    ],
)
def test_boxes_cover_every_pixel_once(shape, spacing, n_pixels):
    seen = np.zeros(shape, int)
    for box in boxes(shape, spacing, n_pixels):
        seen[box] += 1
        assert 0 < seen[box].size <= n_pixels
    assert (seen == 1).all()


def test_boxes_are_square_in_space():
    sizes = {tuple(s.stop - s.start for s in box) for box in boxes((80, 80), (4.0, 1.0), 400)}
    assert sizes == {(10, 40)}


@pytest.mark.parametrize("shape", [(9, 12), (4, 5, 6)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_bounding_box_is_the_smallest_with_all_true_pixels(rng, shape, order):
    mask = np.zeros(shape, bool, order)
    points = rng.integers(1, np.array(shape) - 1, (2, len(shape)))
    mask[tuple(points.T)] = True
    box = bounding_box(mask)
    low, high = points.min(axis=0), points.max(axis=0) + 1
    assert box == tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def test_the_box_of_nothing_is_empty():
    assert bounding_box(np.zeros((3, 4), bool)) == (slice(0, 0), slice(0, 0))
