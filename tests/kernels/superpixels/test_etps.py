"""The kernels of the coarse-to-fine refinement equal their twins and never raise the energy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hybridseg.kernels.superpixels import etps as kernels
from tests.oracles.superpixels import etps as oracles

# (grid of blocks, cells along each axis, features)
CASES = [
    ((1, 1, 1), (1, 1, 1), 1),
    ((1, 1, 9), (1, 1, 3), 1),
    ((1, 9, 1), (1, 2, 1), 2),
    ((1, 8, 10), (1, 2, 3), 3),
    ((4, 5, 6), (2, 2, 2), 2),
    ((5, 1, 6), (2, 1, 3), 4),
]


def make_ring(padded, volume):
    """The offsets to the neighbors of a block, faces first, and the pairs that share a face."""
    deep = (-1, 0, 1) if volume else (0,)
    around = [o for o in itertools.product(deep, (-1, 0, 1), (-1, 0, 1)) if any(o)]
    around.sort(key=lambda o: (sum(map(abs, o)), tuple(map(abs, o))))
    offsets = [np.dot(o, (padded[1] * padded[2], padded[2], 1)) for o in around]
    touch = [
        [int(sum(abs(a - b) for a, b in zip(p, q, strict=True)) == 1) for q in around]
        for p in around
    ]
    adjacency = [sum(t << i for i, t in enumerate(row)) for row in touch]
    return np.array(offsets, np.int64), np.array(adjacency, np.int64)


def make_shares(rng, padded):
    """The areas across the last, middle and first axis of blocks of different sizes."""
    z, y, x = np.meshgrid(*(rng.uniform(0.7, 1.5, n) for n in padded), indexing="ij")
    return np.stack([z * y, z * x, y * x], axis=-1).reshape(-1, 3).astype(np.float32)


def make_case(grid, cells, n_features, seed=0, *, holes=False, blocks=True):
    rng = np.random.default_rng(seed)
    rim = (int(grid[0] > 1), 1, 1)
    padded = tuple(n + 2 * r for n, r in zip(grid, rim, strict=True))
    core = tuple(slice(r, r + n) for r, n in zip(rim, grid, strict=True))
    labels = np.full(padded, -1, np.int32)
    where = [np.arange(n) * c // n for n, c in zip(grid, cells, strict=True)]
    labels[core] = np.ravel_multi_index(np.meshgrid(*where, indexing="ij"), cells)
    if holes:
        labels[0 if grid[0] == 1 else 2, 3, 3:5] = -1
    labels = labels.ravel()
    sizes = np.where(labels >= 0, rng.integers(1, 5, labels.size) if blocks else 1, 0)
    sums = rng.normal(0, 3, (labels.size, n_features)) * sizes[:, None]
    shares = make_shares(rng, padded) if blocks else np.array([[1.0, 2.0, 0.5]], np.float32)
    ring, adjacency = make_ring(padded, grid[0] > 1)
    sums, sizes = sums.astype(np.float32), sizes.astype(np.float32)
    return padded, labels, sums, sizes, shares, ring, adjacency


@pytest.mark.parametrize(("grid", "cells", "n_features"), CASES)
@pytest.mark.parametrize("weight", [0.0, 2.0])
@pytest.mark.parametrize("blocks", [True, False])
def test_refine_equals_twin(grid, cells, n_features, weight, blocks):
    holes = min(grid[1:]) > 4
    padded, labels, sums, sizes, shares, ring, adjacency = make_case(
        grid, cells, n_features, holes=holes, blocks=blocks
    )
    n_regions = labels.max() + 1
    mine, before = labels.copy(), oracles.energy(labels, sums, sizes, shares, ring, weight)
    expected = oracles.refine_blocks(
        labels, sums, sizes, shares, ring, n_regions, weight, 3.0, 4, padded
    )
    n_moves, fall = kernels.refine_blocks(
        mine, sums, sizes, shares, ring, adjacency, n_regions, weight, 3.0, 4
    )
    np.testing.assert_array_equal(mine, labels)
    assert n_moves == expected[0]
    assert fall == pytest.approx(expected[1], rel=1e-5, abs=1e-4)
    assert fall >= 0
    after = oracles.energy(mine, sums, sizes, shares, ring, weight)
    assert before - after == pytest.approx(fall, rel=1e-5, abs=1e-4)
    assert (n_moves > 0) == (fall > 0)


def test_refine_moves_in_a_volume_and_in_an_image():
    """The kernels make moves in these cases, so the comparison above is not trivial."""
    for grid, cells, n_features in CASES[3:5]:
        _, labels, sums, sizes, shares, ring, adjacency = make_case(grid, cells, n_features)
        n_regions = labels.max() + 1
        n_moves, _ = kernels.refine_blocks(
            labels, sums, sizes, shares, ring, adjacency, n_regions, 0.0, 0.0, 9
        )
        assert n_moves > 5


def test_ties_and_constant_features_move_nothing():
    _, labels, sums, sizes, shares, ring, adjacency = make_case((1, 6, 6), (1, 2, 2), 2)
    before = labels.copy()
    sums[:] = 7.0 * sizes[:, None]
    assert kernels.refine_blocks(labels, sums, sizes, shares, ring, adjacency, 4, 0.0, 0.0, 9) == (
        0,
        0.0,
    )
    np.testing.assert_array_equal(labels, before)


def test_smallest_size_is_kept():
    """One region has the values of its neighbor and would vanish, but keeps the smallest size."""
    padded, labels, sums, sizes, _, ring, adjacency = make_case(
        (1, 4, 12), (1, 1, 3), 1, blocks=False
    )
    sums[:] = 0
    sums[labels == 0] = 5.0
    shares = np.ones((1, 3), np.float32)
    kernels.refine_blocks(labels, sums, sizes, shares, ring, adjacency, 3, 50.0, 7.0, 50)
    assert np.bincount(labels[labels >= 0], minlength=3).min() >= 7
    for region in range(3):
        assert oracles.in_one_piece(labels, region, padded)


@pytest.mark.parametrize(
    "bounds", [((0, 1), (0, 2, 5), (0, 3, 4, 7)), ((0, 2, 3), (0, 1), (0, 2, 4))]
)
def test_block_sums_equal_twin(bounds):
    rng = np.random.default_rng(0)
    shape = tuple(b[-1] for b in bounds)
    rim = (int(shape[0] > 1), 1, 1)
    fine = tuple(n + 2 * r for n, r in zip(shape, rim, strict=True))
    coarse = tuple(len(b) - 1 + 2 * r for b, r in zip(bounds, rim, strict=True))
    steps = (coarse[1] * coarse[2], coarse[2], 1)
    places = tuple(
        (np.searchsorted(b, np.arange(b[-1]), side="right") - 1 + r) * s
        for b, r, s in zip(bounds, rim, steps, strict=True)
    )
    fine_steps = (fine[1] * fine[2], fine[2], 1)
    starts = np.array([np.dot(rim, fine_steps), *fine_steps])
    sizes = rng.integers(0, 2, np.prod(fine)).astype(np.float32)
    sums = rng.normal(size=(sizes.size, 3)).astype(np.float32)
    found = kernels.block_sums(sums, sizes, places, starts, int(np.prod(coarse)))
    expected = oracles.block_sums(sums, sizes, places, starts, int(np.prod(coarse)))
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize(("grid", "cells", "n_features"), CASES)
@pytest.mark.parametrize("blocks", [True, False])
def test_contacts_equal_twin(grid, cells, n_features, blocks):
    _, labels, _, _, shares, ring, _ = make_case(grid, cells, n_features, blocks=blocks)
    pairs, areas = kernels.region_contacts(labels, shares, ring)
    expected = oracles.region_contacts(labels, shares, ring)
    np.testing.assert_array_equal(pairs, expected[0])
    np.testing.assert_allclose(areas, expected[1])


@pytest.mark.parametrize("weight", [0.0, 1.5])
@pytest.mark.parametrize("n_left", [1, 4, 11, 20])
@pytest.mark.parametrize("seed", range(4))
def test_merge_equals_twin(weight, n_left, seed):
    """A graph with edges that occur two or three times, and two vertices without neighbors."""
    rng = np.random.default_rng(seed)
    pairs = np.array([(i, j) for i in range(12) for j in range(i) if rng.random() < 0.25])
    pairs = np.concatenate([pairs, pairs[::2, ::-1], pairs[::3]])
    areas = rng.uniform(1, 3, len(pairs))
    count = rng.integers(1, 9, 14).astype(float)
    total = rng.normal(size=(14, 2)) * count[:, None]
    untouched = areas.copy(), total.copy(), count.copy()
    group, rise = kernels.merge_cheapest(pairs, areas, total, count, weight, n_left)
    expected = oracles.merge_cheapest(pairs, areas, total, count, weight, n_left)
    np.testing.assert_array_equal(group, expected[0])
    assert rise == pytest.approx(expected[1])
    assert len(np.unique(group)) >= min(n_left, 14)
    for array, before in zip((areas, total, count), untouched, strict=True):
        np.testing.assert_array_equal(array, before)


def test_merge_of_equal_regions_in_a_row():
    """All pairs cost the same in one connected part; the requested number of regions is left."""
    pairs = np.array([(i, i + 1) for i in range(9)])
    for n_left in range(1, 11):
        group, rise = kernels.merge_cheapest(
            pairs, np.ones(9), np.ones((10, 1)), np.ones(10), 0.0, n_left
        )
        assert len(np.unique(group)) == n_left
        assert rise == 0.0
        assert (np.diff(group) >= 0).all()


def test_merge_without_contacts():
    none = np.zeros((0, 2), np.int64)
    group, rise = kernels.merge_cheapest(none, np.zeros(0), np.ones((3, 1)), np.ones(3), 1.0, 1)
    assert group.tolist() == [0, 1, 2]
    assert rise == 0.0
