"""Costs, their order and the merging equal the slow twins."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from hybridseg.kernels.superpixels import felzenszwalb as kernels
from tests.oracles.superpixels import felzenszwalb as oracles

SHAPES = [(1, 1, 1), (1, 1, 9), (1, 9, 1), (1, 12, 15), (4, 5, 6), (5, 1, 7)]
OFFSETS = np.array([s for s in product((-1, 0, 1), repeat=3) if s > (0, 0, 0)])


def make_case(shape, n_channels, levels, part=1.0, seed=0):
    """Few gray levels give many equal costs."""
    rng = np.random.default_rng(seed)
    planes = rng.integers(0, levels, (n_channels, *shape)).astype(np.float32)
    return planes, rng.random(shape) < part


def sorted_edges(costs):
    """All edges, group by group."""
    edges, starts, least = kernels.part_edges(costs.view(np.uint32))
    assert starts[0] == least[0] == 0
    assert starts[-1] == len(edges)
    groups = []
    for group, (low, high) in enumerate(pairwise(least)):
        mine = edges[starts[group] : starts[group + 1]]
        ordered = kernels.sort_edges(mine, low, high, np.empty_like(mine))
        keys = ordered >> np.uint64(32)
        assert ((low <= keys) & (keys < high)).all()
        groups.append(ordered)
    return np.concatenate(groups)


@pytest.mark.parametrize("part", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_costs_and_their_order_equal_twins(shape, n_channels, part):
    planes, inside = make_case(shape, n_channels, 5, part)
    costs = kernels.edge_costs(planes, inside, OFFSETS)
    np.testing.assert_allclose(costs, oracles.edge_costs(planes, inside, OFFSETS), rtol=1e-6)
    flat = costs.reshape(len(OFFSETS), -1)
    edges = sorted_edges(flat)
    expected = np.array(oracles.sort_edges(flat)).reshape(-1, 3)
    np.testing.assert_array_equal(edges.view(np.float32)[1::2], expected[:, 0])
    places = edges.astype(np.uint32)
    np.testing.assert_array_equal(places >> 4, expected[:, 1])
    np.testing.assert_array_equal(places & 15, expected[:, 2])


def test_sort_takes_costs_of_any_size():
    """Costs range from the least positive float to the greatest, so all digits of keys count."""
    rng = np.random.default_rng(0)
    costs = np.exp(rng.uniform(-100, 88, (4, 3000))).astype(np.float32)
    costs[0, :5] = 0, np.finfo(np.float32).max, 1e-45, np.inf, 1
    edges = sorted_edges(costs)
    expected = np.sort(costs.ravel())[:-1]
    np.testing.assert_array_equal(edges.view(np.float32)[1::2], expected)


@pytest.mark.parametrize("n_costs", [1, 3, 10**6])
def test_groups_are_about_equal_where_costs_allow_it(n_costs):
    costs = np.random.default_rng(0).integers(0, n_costs, (4, 3000)).astype(np.float32)
    costs[0, ::7] = np.inf
    edges, starts, least = kernels.part_edges(costs.view(np.uint32))
    limits = least.astype(np.uint32).view(np.float32)
    expected = np.array(oracles.part_edges(costs, limits))
    np.testing.assert_array_equal(edges.view(np.float32)[1::2], expected[:, 0])
    np.testing.assert_array_equal(edges.astype(np.uint32) >> 4, expected[:, 1])
    np.testing.assert_array_equal(edges.astype(np.uint32) & 15, expected[:, 2])
    sizes = np.diff(starts)
    assert sizes.sum() == np.isfinite(costs).sum()
    assert np.count_nonzero(sizes) == min(n_costs, len(sizes))
    if n_costs > 3:
        assert sizes.max() < 1.5 * sizes.mean()


@pytest.mark.parametrize("levels", [1, 4, 256])
@pytest.mark.parametrize(("scale", "min_size"), [(0.0, 0), (0.0, 7), (60.0, 1), (300.0, 12)])
@pytest.mark.parametrize("shape", SHAPES)
def test_merging_equals_twin(shape, scale, min_size, levels):
    planes, inside = make_case(shape, 2, levels, 0.8, seed=1)
    flat = kernels.edge_costs(planes, inside, OFFSETS).reshape(len(OFFSETS), -1)
    shifts = OFFSETS @ np.array([shape[1] * shape[2], shape[2], 1])
    expected = oracles.merge_edges(
        oracles.sort_edges(flat), shifts, scale, min_size, inside.ravel()
    )
    groups = kernels.part_edges(flat.view(np.uint32))
    regions = kernels.merge_edges(*groups, shifts, np.float32(scale), min_size, inside.ravel())
    np.testing.assert_array_equal(regions, expected)


@pytest.mark.parametrize("radius", [0, 1, 4, 30])
@pytest.mark.parametrize("shape", [(3, 9, 7), (2, 9, 1), (1, 1, 5), (2, 1, 1), (0, 4, 3)])
def test_blur_equals_twin(shape, radius):
    rng = np.random.default_rng(0)
    values = rng.normal(size=shape).astype(np.float32)
    taps = rng.random(radius + 1).astype(np.float32)
    np.testing.assert_allclose(kernels.blur(values, taps), oracles.blur(values, taps), atol=1e-4)
