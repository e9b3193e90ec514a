"""Runs, pieces and the merging of small ones equal their twins on whole maps."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.superpixels import runs as kernels
from hybridseg.kernels.vectors import simd as simd
from tests.oracles.superpixels import regions as region_oracles
from tests.oracles.superpixels import runs as oracles
from tests.oracles.superpixels import slic_centers as slic_oracles

SHAPES = [
    (1, 1, 1),
    (1, 1, 9),
    (1, 9, 1),
    (1, 13, 17),
    (4, 5, 6),
    (5, 1, 7),
    (1, 3, 64),
    (2, 3, 137),
]
VECTORS = [None, True] if simd.ENABLED else [None]


def make_map(shape, n_labels, seed=0):
    """Labels with few values, so that pieces are larger than pixels; some are negative."""
    rng = np.random.default_rng(seed)
    return rng.integers(-1, n_labels, shape).astype(np.int32)


@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("n_labels", [0, 1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_runs_and_pieces_equal_twins(shape, n_labels, vectors):
    labels = make_map(shape, n_labels)
    starts, firsts = kernels.find_runs(labels, vectors)
    expected_starts, expected_firsts = oracles.find_runs(labels)
    np.testing.assert_array_equal(starts, expected_starts)
    np.testing.assert_array_equal(firsts, expected_firsts)
    pieces, n_pieces = kernels.join_runs(labels, starts, firsts, vectors)
    expected, n_expected = oracles.join_runs(labels, starts, firsts)
    np.testing.assert_array_equal(pieces, expected)
    assert n_pieces == n_expected


@pytest.mark.parametrize("n_labels", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_pieces_hold_equals_twins(shape, n_labels):
    labels = make_map(shape, n_labels, seed=1)
    starts, firsts = kernels.find_runs(labels)
    pieces, n_pieces = kernels.join_runs(labels, starts, firsts)
    components, _ = region_oracles.connected_components(labels)
    rng = np.random.default_rng(2)
    quads = rng.integers(-32768, 32768, (2, *shape[:2], shape[2] + 5, 4)).astype(np.int16)
    label_sums = slic_oracles.center_sums(quads, labels, n_labels)
    sums, sizes = kernels.piece_sums(quads, labels, label_sums, starts, firsts, pieces, n_pieces)
    expected, expected_sizes = oracles.piece_sums(quads, components, n_pieces)
    np.testing.assert_array_equal(sums, expected.reshape(sums.shape))
    np.testing.assert_array_equal(sizes, expected_sizes)
    for min_size in (0.0, 2.5, 1e9):
        pairs = kernels.small_neighbors(starts, firsts, shape[1], pieces, sizes, min_size)
        expected = oracles.small_neighbors(components, sizes, min_size)
        keys = pairs[:, 0].astype(int) * n_pieces + pairs[:, 1]
        np.testing.assert_array_equal(np.unique(keys), expected)
    groups = rng.integers(0, n_pieces, n_pieces).astype(np.int32)
    np.testing.assert_array_equal(kernels.number_groups(groups), oracles.number_groups(groups))
    values = rng.integers(0, 99, n_pieces).astype(np.int32)
    painted = kernels.paint_runs(values, starts, pieces)
    np.testing.assert_array_equal(painted, oracles.paint_runs(values, components))


@pytest.mark.parametrize("min_size", [0.0, 3.5, 12.0, 1000.0])
@pytest.mark.parametrize("seed", range(3))
def test_merge_small_equals_twin(min_size, seed):
    rng = np.random.default_rng(seed)
    edges = np.array([(i, j) for i in range(12) for j in range(i + 1, 12) if rng.random() < 0.2])
    sizes = rng.integers(1, 9, 13)  # the last component has no neighbor
    sums = rng.normal(size=(13, 2)) * sizes[:, None]
    untouched = sums.copy(), sizes.copy()
    group = kernels.merge_small(edges.astype(np.int32), sums, sizes, min_size)
    np.testing.assert_array_equal(group, oracles.merge_small(edges, sums, sizes, min_size))
    np.testing.assert_array_equal(sums, untouched[0])
    np.testing.assert_array_equal(sizes, untouched[1])
    assert group[12] == 12


def test_merge_small_keeps_large_regions():
    edges = np.array([[0, 1], [1, 2]], np.int32)
    sums = np.array([[0.0], [9.0], [100.0]])
    group = kernels.merge_small(edges, sums, np.array([10, 1, 10]), 2.0)
    np.testing.assert_array_equal(group, [0, 2, 2])  # mean 9 is nearer to 10 than to 0


def test_merge_small_continues_with_the_mean_of_merged_regions():
    """The values 8 and 10 join first; their mean 9 is nearer to 13 than to 4."""
    edges = np.array([[0, 1], [1, 2], [1, 3]], np.int32)
    sums = np.array([[8.0], [10.0], [40.0], [130.0]])
    group = kernels.merge_small(edges, sums, np.array([1, 1, 10, 10]), 3.0)
    np.testing.assert_array_equal(group, [3, 3, 2, 3])
