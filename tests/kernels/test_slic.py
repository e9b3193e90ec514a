"""The SLIC kernels equal their slow twins, with and without vectors, for any number of threads."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from hybridseg.kernels import _simd as simd
from hybridseg.kernels import slic as kernels
from hybridseg.kernels import slic_centres as centres_of
from tests.kernels.assembly import assembly_of, on_x86
from tests.oracles import slic as oracles

# (shape, cells along each axis, channels)
CASES = [
    ((1, 1, 1), (1, 1, 1), 1),
    ((1, 11, 57), (1, 3, 3), 3),
    ((1, 17, 5), (1, 5, 1), 1),
    ((6, 7, 9), (2, 3, 4), 2),
    ((5, 1, 8), (4, 1, 3), 7),
    ((1, 9, 40), (1, 1, 1), 4),
]
WEIGHTS = np.array([90.0, 70.0, 120.0], np.float32)


def padded(values):
    """Planes with the room that the kernel wants at the end of the rows, holding nonsense."""
    width = (values.shape[-1] // kernels.LANES + 2) * kernels.LANES
    planes = np.full((*values.shape[:-1], width), 31000, np.int16)
    planes[..., : values.shape[-1]] = values
    return planes


def make_case(shape, grid, n_channels, seed=0):
    """Planes, bounds, cell numbers and the centres and sums that the cells begin with."""
    rng = np.random.default_rng(seed)
    planes = padded(rng.normal(0, 500, (n_channels, *shape)).round())
    bounds = tuple(np.arange(n + 1) * size // n for n, size in zip(grid, shape, strict=True))
    labels = np.empty(shape, np.int32)
    for pixel in np.ndindex(shape):
        labels[pixel] = np.ravel_multi_index(oracles.cell_of(pixel, bounds), grid)
    sums = oracles.centre_sums(planes, labels, np.prod(grid))
    centres = (sums[:, :-1] / sums[:, -1:]).astype(np.float32)
    return planes, bounds, labels, centres, sums


@pytest.fixture(params=[True, False], ids=["vectors", "numbers"])
def vectors(request, monkeypatch):
    if request.param and not simd.ENABLED:
        pytest.skip("vectors are switched off")
    monkeypatch.setattr(simd, "ENABLED", request.param)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_assign_equals_brute_force(shape, grid, n_channels):
    planes, bounds, labels, centres, sums = make_case(shape, grid, n_channels)
    alive = np.ones(len(centres), bool)
    expected = oracles.assign_pixels(planes, bounds, centres, alive, WEIGHTS, labels)
    before, old = labels.copy(), centres.copy()
    n_changed = kernels.assign_pixels(planes, bounds, centres, alive, WEIGHTS, labels, sums)
    assert n_changed == np.count_nonzero(labels != before)
    np.testing.assert_array_equal(sums, oracles.centre_sums(planes, labels, len(sums)))
    assert np.mean(labels != expected) < 0.01
    for pixel in zip(*np.nonzero(labels != expected), strict=True):  # ties of float32 only
        found = oracles.candidate_distances(pixel, planes, bounds, old, alive, WEIGHTS)
        assert found[labels[pixel]] == pytest.approx(found[expected[pixel]], rel=1e-5)


@pytest.mark.usefixtures("vectors")
def test_assign_leaves_dead_centres_and_masked_pixels():
    planes, bounds, labels, centres, _ = make_case((1, 10, 12), (1, 2, 3), 3)
    alive = np.array([True, False, True, True, True, True])
    outside = np.zeros(labels.shape, bool)
    outside[0, 2:6, 3:9] = True
    outside |= labels == 1
    labels[outside] = -1
    sums = oracles.centre_sums(planes, labels, 6)
    expected = oracles.assign_pixels(planes, bounds, centres, alive, WEIGHTS, labels)
    kernels.assign_pixels(planes, bounds, centres, alive, WEIGHTS, labels, sums)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(sums, oracles.centre_sums(planes, labels, 6))
    assert (labels[outside] == -1).all()
    assert not (labels == 1).any()


@pytest.mark.usefixtures("vectors")
def test_first_of_equal_centres_wins():
    planes = padded(np.zeros((1, 1, 1, 8)))
    bounds = (np.array([0, 1]), np.array([0, 1]), np.array([0, 4, 8]))
    centres = np.array([[0, 0, 0, 3.0], [0, 0, 0, 3.0]], np.float32)
    labels = np.repeat([0, 1], 4).astype(np.int32).reshape(1, 1, 8)
    sums = oracles.centre_sums(planes, labels, 2)
    alive = np.ones(2, bool)
    kernels.assign_pixels(planes, bounds, centres, alive, np.ones(3, np.float32), labels, sums)
    assert (labels == 0).all()


@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_centre_sums_equal_twin(shape, grid, n_channels):
    planes, bounds, labels, centres, _ = make_case(shape, grid, n_channels)
    alive = np.ones(len(centres), bool)
    labels = oracles.assign_pixels(planes, bounds, centres, alive, WEIGHTS, labels)
    labels.ravel()[::5] = -1
    expected = oracles.centre_sums(planes, labels, len(centres))
    sums = np.full_like(expected, 7)
    centres_of.centre_sums(planes, labels, sums)
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_centres_leave_edges_as_twin(shape, grid, n_channels, constant):
    planes, bounds, _, centres, _ = make_case(shape, grid, n_channels)
    planes[:] = 3 if constant else planes
    inside = np.random.default_rng(1).random(shape) < 0.6
    expected = oracles.leave_edges(planes, inside, bounds, centres)
    centres_of.leave_edges(planes, inside, bounds, centres)
    np.testing.assert_array_equal(centres, expected)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_result_does_not_depend_on_the_threads(shape, grid, n_channels):
    planes, bounds, labels, centres, sums = make_case(shape, grid, n_channels)
    alive = np.ones(len(centres), bool)

    def run(n_threads):
        numba.set_num_threads(n_threads)
        mine, my_sums, my_centres = labels.copy(), sums.copy(), centres.copy()
        changed = kernels.assign_pixels(
            planes, bounds, my_centres, alive, WEIGHTS, mine, my_sums, 3
        )
        return mine.tobytes(), changed, my_sums.tobytes(), my_centres.tobytes()

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
@pytest.mark.parametrize(("shape", "grid", "n_channels"), CASES)
def test_passes_equal_single_passes_and_the_means_between_them(shape, grid, n_channels):
    planes, bounds, labels, centres, sums = make_case(shape, grid, n_channels)
    alive = np.ones(len(centres), bool)
    single = labels.copy(), sums.copy(), centres.copy()
    changed = [
        kernels.assign_pixels(planes, bounds, single[2], alive, WEIGHTS, *single[:2])
        for _ in range(4)
    ]
    last = kernels.assign_pixels(planes, bounds, centres, alive, WEIGHTS, labels, sums, 4)
    for found, expected in zip((labels, sums, centres), single, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert last == changed[-1]
    filled = sums[:, -1] > 0
    means = sums[filled, :-1] / sums[filled, -1:]
    np.testing.assert_array_equal(centres[filled], means.astype(np.float32))


@pytest.mark.usefixtures("vectors")
def test_passes_end_when_nothing_changes():
    planes, bounds, labels, centres, sums = make_case((1, 8, 12), (1, 2, 3), 3)
    planes[:] = 0
    sums[:, :3] = 0
    centres[:, :3] = 0
    before = labels.copy()
    alive = np.ones(len(centres), bool)
    assert kernels.assign_pixels(planes, bounds, centres, alive, WEIGHTS, labels, sums, 2**40) == 0
    np.testing.assert_array_equal(labels, before)


@on_x86
def test_distances_are_packed():
    planes, nearest = np.zeros((3, 1, 2, 64), np.int16), np.zeros((2, 64), np.int32)
    rows, offset, bases = np.zeros((2, 0, 64), "f4"), np.zeros(64, "f4"), np.zeros(18, "f4")
    coefs, names, bounds = np.zeros((9, 5), np.float32), np.zeros(9, np.int32), np.array([0, 40])
    code = assembly_of(
        kernels._nearest_vectors,
        planes,
        0,
        0,
        1,
        rows,
        offset,
        bounds,
        coefs,
        names,
        bases,
        nearest,
    )
    assert "vfmadd" in code
    assert "ps" in code.split("vfmadd", 1)[1].split()[0]
