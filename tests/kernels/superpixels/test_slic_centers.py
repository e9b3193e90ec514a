"""The first centers and their sums equal their twins."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.superpixels import slic_centers as kernels
from tests.kernels.superpixels.cells import CASES, WEIGHTS, make_case
from tests.oracles.superpixels import slic
from tests.oracles.superpixels import slic_centers as oracles


@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_center_sums_equal_twin(shape, grid, n_channels):
    quads, bounds, labels, centers, _ = make_case(shape, grid, n_channels)
    alive = np.ones(len(centers), bool)
    labels = slic.assign_pixels(quads, bounds, centers, alive, WEIGHTS, labels)[0]
    labels.ravel()[::5] = -1
    expected = oracles.center_sums(quads, labels, len(centers))
    sums = np.full_like(expected, 7)
    kernels.center_sums(quads, labels, sums)
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_centers_leave_edges_as_twin(shape, grid, n_channels, constant):
    quads, bounds, _, centers, _ = make_case(shape, grid, n_channels)
    quads[:] = 3 if constant else quads
    inside = np.random.default_rng(1).random(shape) < 0.6
    expected = oracles.leave_edges(quads, inside, bounds, centers)
    kernels.leave_edges(quads, inside, bounds, centers)
    np.testing.assert_array_equal(centers, expected)
