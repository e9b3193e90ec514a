"""Trees start from the roots of their twin, and end with the residual of the textbook's flow."""

import numpy as np
import pytest

from hybridseg.kernels.cuts.grid_trees import (
    SINK,
    SOURCE,
    make_trees,
    meet,
    part_of_trees,
    plant_trees,
)
from tests.kernels.cuts.grids import SHAPES, filled, flow_of, mark_open, problem
from tests.oracles.cuts import grid_trees as oracle


@pytest.mark.parametrize("banded", [False, True])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("shape", [*SHAPES, (14, 17), (4, 6, 7)])
def test_trees_equal_their_twins(shape, dtype, banded):
    costs, weights = problem(shape, len(shape), 5, dtype)
    forest = filled(costs, weights).forest
    n_nodes = forest.excess.size
    first = n_nodes // (shape[0] + 2) * ((shape[0] + 2) // 2) if banded else 0
    mark_open(forest, first, n_nodes)
    before = forest.cap.copy(), forest.excess.copy(), forest.offsets
    trees = part_of_trees(make_trees(n_nodes), first, n_nodes)
    n_now = plant_trees(forest, trees, first, n_nodes)
    own, leaving = oracle.plant_trees(*before, first, n_nodes)
    np.testing.assert_array_equal(trees.own[first:], own[first:])
    assert trees.now[:n_now].tolist() == leaving
    assert np.flatnonzero(trees.waiting).tolist() == leaving

    assert meet(forest, trees, n_now, 0) >= 0
    flow, source, sink = oracle.meet(*before, first, n_nodes)
    np.testing.assert_array_equal((trees.own >= SOURCE) & (trees.own < SINK), source)
    np.testing.assert_array_equal(trees.own >= SINK, sink)
    given = np.maximum(before[1], 0).sum() - np.maximum(forest.excess, 0).sum()
    np.testing.assert_allclose(given, flow)
    assert (forest.cap >= 0).all()
    bits = forest.out.copy(), forest.into.copy()
    mark_open(forest, first, n_nodes)
    np.testing.assert_array_equal(bits, (forest.out, forest.into))


def test_stamps_begin_anew():
    costs, weights = problem((12, 14), 2, 6)
    network = filled(costs, weights)
    forest = network.forest
    n_nodes = forest.excess.size
    flow, source, _ = oracle.meet(forest.cap.copy(), *forest[1:3], 0, n_nodes)
    trees = make_trees(n_nodes)
    n_now = plant_trees(forest, trees, 0, n_nodes)
    trees.stamp[:] = 2**31 - 4
    assert 0 < meet(forest, trees, n_now, 2**31 - 4) < n_nodes * 8
    np.testing.assert_array_equal((trees.own >= SOURCE) & (trees.own < SINK), source)
    assert flow_of(network, costs) == flow
