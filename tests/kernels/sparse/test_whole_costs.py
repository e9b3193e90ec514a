"""Integer costs equal their twins."""

import numpy as np
import pytest

from hybridseg.kernels.sparse import whole_costs
from tests.kernels.cuts.problems import SHAPES, problem
from tests.oracles.sparse import whole_costs as oracle


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_costs_equal_their_twins(shape, dtype):
    graph = problem(4, shape, 5, np.int64 if dtype is np.int64 else np.float64)
    unary = (3 * graph.unary).astype(dtype)
    least, limit = np.empty(len(unary), graph.weight.dtype), np.empty(len(unary))
    reach = whole_costs.cost_limits(graph.first, graph.weight, unary, least, limit)
    expected = oracle.cost_limits(graph.first, graph.weight, unary)
    np.testing.assert_array_equal(least, expected[0])
    np.testing.assert_allclose(limit, expected[1], 1e-12)
    assert reach == pytest.approx(expected[2])
    costs = np.empty(unary.shape, np.int32)
    given = (unary, least, limit, 7)
    if dtype is np.int64:
        whole_costs.shift_costs(*given, costs)
        np.testing.assert_array_equal(costs, oracle.shift_costs(*given))
    else:
        whole_costs.round_costs(*given, costs)
        np.testing.assert_array_equal(costs, oracle.round_costs(*given))
