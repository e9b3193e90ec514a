"""Boxes cut an image evenly."""

import numpy as np
import pytest

from hybridseg.features.boxes import boxes


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
