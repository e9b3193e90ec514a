"""The SLIC kernels equal their slow twins, with and without vectors, for any number of threads."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from hybridseg.kernels.superpixels import slic as kernels
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.superpixels.cells import CASES, WEIGHTS, make_case, padded
from tests.kernels.vectors.assembly import assembly_of, on_x86
from tests.oracles.superpixels import slic as oracles
from tests.oracles.superpixels.slic_centers import center_sums, channels_of


@pytest.fixture(params=[True, False], ids=["vectors", "numbers"])
def vectors(request, monkeypatch):
    if request.param and not simd.ENABLED:
        pytest.skip("vectors are switched off")
    monkeypatch.setattr(simd, "ENABLED", request.param)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("n_iter", [1, 2, 5])
@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_assign_equals_brute_force(shape, grid, n_channels, n_iter):
    quads, bounds, labels, centers, sums = make_case(shape, grid, n_channels)
    alive = np.ones(len(centers), bool)
    expected = oracles.assign_pixels(quads, bounds, centers, alive, WEIGHTS, labels, n_iter)
    n_changed = kernels.assign_pixels(quads, bounds, centers, alive, WEIGHTS, labels, sums, n_iter)
    for found, right in zip((labels, sums, centers, n_changed), expected, strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_whole_numbers_choose_the_nearest(shape, grid, n_channels):
    """The twins may differ by the rounding of the centers' colors and of the half squares."""
    quads, bounds, labels, centers, sums = make_case(shape, grid, n_channels)
    alive, old = np.ones(len(centers), bool), centers.copy()
    kernels.assign_pixels(quads, bounds, centers, alive, WEIGHTS, labels, sums)
    channels = channels_of(quads)
    for pixel in np.ndindex(shape):
        color = channels[(slice(None), *pixel)]
        near = list(oracles.candidate_costs(pixel, quads, bounds, old, alive, WEIGHTS))
        away = ((color - old[near, :-3]) ** 2).sum(axis=1)
        away += (((np.array(pixel) - old[near, -3:]) * WEIGHTS) ** 2).sum(axis=1)
        slack = np.abs(color - old[near, :-3]).sum(axis=1).max() + 4 * len(color) + 8
        assert away[near.index(labels[pixel])] <= away.min() + 2 * slack


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("n_iter", [1, 3])
def test_assign_leaves_dead_centers_and_masked_pixels(n_iter):
    quads, bounds, labels, centers, _ = make_case((1, 10, 12), (1, 2, 3), 3)
    alive = np.array([True, False, True, True, True, True])
    outside = np.zeros(labels.shape, bool)
    outside[0, 2:6, 3:9] = True
    outside |= labels == 1
    labels[outside] = -1
    sums = center_sums(quads, labels, 6)
    expected = oracles.assign_pixels(quads, bounds, centers, alive, WEIGHTS, labels, n_iter)
    kernels.assign_pixels(quads, bounds, centers, alive, WEIGHTS, labels, sums, n_iter)
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(sums, expected[1])
    assert (labels[outside] == -1).all()
    assert not (labels == 1).any()


@pytest.mark.usefixtures("vectors")
def test_first_of_equal_centers_wins():
    quads = padded(np.zeros((1, 1, 1, 8)))
    bounds = (np.array([0, 1]), np.array([0, 1]), np.array([0, 4, 8]))
    centers = np.array([[0, 0, 0, 0, 0, 0, 3.0]] * 2, np.float32)
    labels = np.repeat([0, 1], 4).astype(np.int32).reshape(1, 1, 8)
    sums = center_sums(quads, labels, 2)
    alive = np.ones(2, bool)
    kernels.assign_pixels(quads, bounds, centers, alive, np.ones(3, np.float32), labels, sums)
    assert (labels == 0).all()


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_result_does_not_depend_on_the_threads(shape, grid, n_channels):
    quads, bounds, labels, centers, sums = make_case(shape, grid, n_channels)
    alive = np.ones(len(centers), bool)

    def run(n_threads):
        numba.set_num_threads(n_threads)
        mine, my_sums, my_centers = labels.copy(), sums.copy(), centers.copy()
        changed = kernels.assign_pixels(quads, bounds, my_centers, alive, WEIGHTS, mine, my_sums, 3)
        return mine.tobytes(), changed, my_sums.tobytes(), my_centers.tobytes()

    before = numba.get_num_threads()
    if before == 1:
        pytest.skip("numba has one thread only")
    try:
        expected = run(1)
        for n_threads in range(2, min(before, 4) + 1):
            assert run(n_threads) == expected
    finally:
        numba.set_num_threads(before)


@pytest.mark.usefixtures("vectors")
def test_passes_end_when_nothing_changes():
    quads, bounds, labels, centers, sums = make_case((1, 8, 12), (1, 2, 3), 3)
    quads[:] = 0
    sums[:, :4] = 0
    centers[:, :4] = 0
    before = labels.copy()
    alive = np.ones(len(centers), bool)
    assert kernels.assign_pixels(quads, bounds, centers, alive, WEIGHTS, labels, sums, 2**40) == 0
    np.testing.assert_array_equal(labels, before)


@on_x86
def test_distances_are_packed():
    words, found = np.zeros(4 * 64 * 2, np.int32), np.zeros(4 * 64, np.uint8)
    coefs, bases = np.zeros(9 * 2, np.int32), np.zeros(9 * 4, np.int32)
    first, line, rows, plane, left, right, near, pair, stride, to, pitch = map(
        np.uint64, (0, 128, 4, 512, 0, 40, 9, 2, 40, 0, 64)
    )
    across = np.zeros(9 * 40, np.int32)
    code = assembly_of(
        kernels._nearest_vectors, words, first, line, rows, plane, left, right, near, coefs, pair,
        across, stride, bases, found, to, pitch, None,
    )  # fmt: skip
    assert "vpmaddwd" in code or "vpdpwssd" in code
    assert "vpminsd" in code
