"""Flows along straight lines equal their twin to the last bit, and are maximal."""

import numpy as np
import pytest

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.cuts.grid_lines import halved, send_straight
from tests.kernels.cuts.grids import excess_of, network_of, problem
from tests.oracles.cuts import grid_cut
from tests.oracles.cuts import grid_lines as oracle


@kernel
def half(value, times):
    return halved(value, times)


@pytest.mark.parametrize("value", [0, 1, -1, 7, -7, 2**40 + 1, -(2**40) - 1, 0.0, 1.5, -3e-9, 1e30])
@pytest.mark.parametrize("times", [0, 1, 2, 4])
def test_halves(value, times):
    found = half(value, times)
    assert found == oracle.halved(value, times)
    assert isinstance(found, type(value))


@pytest.mark.parametrize(
    ("shape", "connectivity"), [((1, 1), 1), ((1, 7), 1), ((5, 6), 2), ((2, 3, 4), 3)]
)
@pytest.mark.parametrize("halvings", [0, 1, 3])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_a_straight_flow_equals_its_twin(shape, connectivity, halvings, dtype):
    costs, weights = problem(shape, connectivity, 4, dtype)
    if dtype is np.float64:
        costs = costs * 0.1
    width = shape[-1] + 2
    forest = network_of(costs, weights).forest
    n_rows = forest.excess.size // width
    for d in range(len(forest.cap)):
        for first, stop in ((0, n_rows), (0, n_rows - 1), (n_rows // 2, n_rows)):
            network = network_of(costs, weights)
            forest = network.forest
            network.inside(forest.excess)[...] = excess_of(costs)
            cap, excess = forest.cap.tolist(), forest.excess.tolist()
            n_nodes = (stop - first) * width
            takes, comes = np.empty((2, n_nodes), dtype)
            how = (d, halvings, first * width)
            send_straight(forest, takes, comes, *how, width)
            oracle.send_straight(cap, excess, forest.offsets.tolist(), *how, n_nodes, width)
            np.testing.assert_array_equal(forest.cap, cap)
            np.testing.assert_array_equal(forest.excess, excess)


@pytest.mark.parametrize(("shape", "connectivity"), [((5, 6), 1), ((5, 6), 2), ((2, 3, 4), 3)])
@pytest.mark.parametrize("halvings", [0, 1, 3])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_a_straight_flow_is_maximal_and_spreads_nothing(shape, connectivity, halvings, dtype):
    costs, weights = problem(shape, connectivity, 4, dtype)
    for d in range(2 * len(weights)):
        network = network_of(costs, weights)
        forest = network.forest
        network.inside(forest.excess)[...] = excess_of(costs)
        before = forest._replace(cap=forest.cap.copy(), excess=forest.excess.copy())
        alone = np.where(np.arange(len(forest.cap))[:, np.newaxis] == d, forest.cap, 0)
        flow = grid_cut.grid_cut(alone.astype(int), forest.excess.astype(int), forest.offsets)[1]
        takes, comes = np.empty((2, forest.excess.size), dtype)
        send_straight(forest, takes, comes, d, halvings, 0, shape[-1] + 2)
        sent = before.cap[d] - forest.cap[d]
        back = len(forest.cap) - 1 - d
        assert (forest.cap >= 0).all()
        assert (sent >= 0).all()
        came = np.roll(sent, forest.offsets[d])
        np.testing.assert_array_equal(forest.cap[back] - before.cap[back], came)
        np.testing.assert_allclose(before.excess - forest.excess, sent - came, atol=1e-12)
        assert (forest.excess * before.excess >= 0).all()
        assert (abs(forest.excess) <= abs(before.excess)).all()
        given = np.maximum(before.excess, 0).sum() - np.maximum(forest.excess, 0).sum()
        assert given == flow if halvings == 0 else 0 <= given <= flow
