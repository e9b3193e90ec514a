"""The SLIC kernels equal their slow twins, whatever the number of threads."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from hybridseg.kernels import slic as kernels
from tests.oracles import slic as oracles

# (shape, cells along each axis, channels)
CASES = [
    ((1, 1, 1), (1, 1, 1), 1),
    ((1, 11, 17), (1, 3, 4), 3),
    ((1, 17, 5), (1, 5, 1), 1),
    ((6, 7, 9), (2, 3, 4), 2),
    ((5, 1, 8), (4, 1, 3), 7),
]


def make_case(shape, grid, n_channels, seed=0):
    """Planes, bounds, cell numbers and the centres that the cells begin with."""
    rng = np.random.default_rng(seed)
    planes = rng.normal(0, 20, (n_channels, *shape)).astype(np.float32)
    bounds = tuple(np.arange(n + 1) * size // n for n, size in zip(grid, shape, strict=True))
    labels = np.empty(shape, np.int32)
    for pixel in np.ndindex(shape):
        labels[pixel] = np.ravel_multi_index(oracles.cell_of(pixel, bounds), grid)
    sums = oracles.centre_sums(planes, labels, bounds)
    centres = (sums[:, :-1] / sums[:, -1:]).astype(np.float32)
    return planes, bounds, labels, centres


@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_assign_equals_brute_force(shape, grid, n_channels):
    planes, bounds, labels, centres = make_case(shape, grid, n_channels)
    weights = np.array([3.0, 2.0, 4.0], np.float32)
    alive = np.ones(len(centres), bool)
    expected = oracles.assign_pixels(planes, bounds, centres, alive, weights, labels)
    before = labels.copy()
    n_changed, sums = kernels.assign_pixels(planes, bounds, centres, alive, weights, labels)
    assert n_changed == np.count_nonzero(labels != before)
    np.testing.assert_allclose(sums, oracles.centre_sums(planes, labels, bounds), atol=1e-9)
    for pixel in zip(*np.nonzero(labels != expected), strict=True):  # ties of float32 only
        found = oracles.candidate_distances(pixel, planes, bounds, centres, alive, weights)
        assert found[labels[pixel]] == pytest.approx(found[expected[pixel]], rel=1e-5)


def test_assign_leaves_dead_centres_and_masked_pixels():
    planes, bounds, labels, centres = make_case((1, 10, 12), (1, 2, 3), 3)
    alive = np.array([True, False, True, True, True, True])
    outside = np.zeros(labels.shape, bool)
    outside[0, 2:6, 3:9] = True
    outside |= labels == 1
    labels[outside] = -1
    weights = np.ones(3, np.float32)
    expected = oracles.assign_pixels(planes, bounds, centres, alive, weights, labels)
    kernels.assign_pixels(planes, bounds, centres, alive, weights, labels)
    np.testing.assert_array_equal(labels, expected)
    assert (labels[outside] == -1).all()
    assert not (labels == 1).any()


def test_first_of_equal_centres_wins():
    planes = np.zeros((1, 1, 1, 8), np.float32)
    bounds = (np.array([0, 1]), np.array([0, 1]), np.array([0, 4, 8]))
    centres = np.array([[0, 0, 0, 3.0], [0, 0, 0, 3.0]], np.float32)
    labels = np.repeat([0, 1], 4).astype(np.int32).reshape(1, 1, 8)
    alive = np.ones(2, bool)
    kernels.assign_pixels(planes, bounds, centres, alive, np.ones(3, np.float32), labels)
    assert (labels == 0).all()


@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_centre_sums_equal_twin(shape, grid, n_channels):
    planes, bounds, labels, centres = make_case(shape, grid, n_channels)
    weights = np.full(3, 2.0, np.float32)
    alive = np.ones(len(centres), bool)
    labels = oracles.assign_pixels(planes, bounds, centres, alive, weights, labels)
    labels.ravel()[::5] = -1
    expected = oracles.centre_sums(planes, labels, bounds)
    np.testing.assert_allclose(kernels.centre_sums(planes, labels, bounds), expected, atol=1e-9)


@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_result_does_not_depend_on_the_threads(shape, grid, n_channels):
    planes, bounds, labels, centres = make_case(shape, grid, n_channels)
    weights, alive = np.full(3, 2.0, np.float32), np.ones(len(centres), bool)

    def run(n_threads):
        numba.set_num_threads(n_threads)
        mine = labels.copy()
        n_changed, sums = kernels.assign_pixels(planes, bounds, centres, alive, weights, mine)
        return mine.tobytes(), n_changed, sums.tobytes()

    before = numba.get_num_threads()
    if before == 1:
        pytest.skip("numba has one thread only")
    try:
        expected = run(1)
        for n_threads in range(2, min(before, 4) + 1):
            assert run(n_threads) == expected
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("min_size", [0.0, 3.5, 12.0, 1000.0])
@pytest.mark.parametrize("seed", range(3))
def test_merge_small_equals_twin(min_size, seed):
    rng = np.random.default_rng(seed)
    edges = np.array([(i, j) for i in range(12) for j in range(i + 1, 12) if rng.random() < 0.2])
    sizes = rng.integers(1, 9, 13)  # the last component has no neighbour
    sums = rng.normal(size=(13, 2)) * sizes[:, None]
    untouched = sums.copy(), sizes.copy()
    group = kernels.merge_small(edges.astype(np.int32), sums, sizes, min_size)
    np.testing.assert_array_equal(group, oracles.merge_small(edges, sums, sizes, min_size))
    np.testing.assert_array_equal(sums, untouched[0])
    np.testing.assert_array_equal(sizes, untouched[1])
    assert group[12] == 12


def test_merge_small_keeps_what_is_large_enough():
    edges = np.array([[0, 1], [1, 2]], np.int32)
    sums = np.array([[0.0], [9.0], [100.0]])
    group = kernels.merge_small(edges, sums, np.array([10, 1, 10]), 2.0)
    np.testing.assert_array_equal(group, [0, 2, 2])  # mean 9 is nearer to 10 than to 0


def test_merge_small_goes_on_from_the_mean_of_what_is_merged():
    """8 and 10 join first; together, 9, they are nearer to 13 than to 4."""
    edges = np.array([[0, 1], [1, 2], [1, 3]], np.int32)
    sums = np.array([[8.0], [10.0], [40.0], [130.0]])
    group = kernels.merge_small(edges, sums, np.array([1, 1, 10, 10]), 3.0)
    np.testing.assert_array_equal(group, [3, 3, 2, 3])
