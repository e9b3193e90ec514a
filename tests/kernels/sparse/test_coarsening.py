import numpy as np
import pytest

from hybridseg.kernels.sparse import coarsening
from tests.kernels.cuts.problems import SHAPES, problem
from tests.oracles.sparse import coarsening as oracle


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("shape", [*SHAPES, (5, 7)])
def test_pairs_and_their_graph_equal_their_twins(shape, dtype):
    for seed in range(5):
        graph = problem(seed, shape, 4, dtype)
        if seed == 1 and len(graph.weight):
            graph.weight[:] = 0  # no nodes to join
        cell, n_cells = coarsening.pair_nodes(graph.first, graph.head, graph.weight)
        expected = oracle.pair_nodes(graph.first, graph.head, graph.weight)
        np.testing.assert_array_equal(cell, expected[0])
        assert n_cells == expected[1]
        arcs = (graph.first, graph.head, graph.weight, cell, n_cells)
        i, j, weight = coarsening.merge_edges(*arcs)
        merged = dict(zip(zip(i.tolist(), j.tolist(), strict=True), weight, strict=True))
        assert merged == pytest.approx(oracle.merge_edges(*arcs))
        assert len(merged) == len(i)
        sums = coarsening.merge_costs(graph.unary, cell, n_cells, 3)
        np.testing.assert_allclose(sums, oracle.merge_costs(graph.unary, cell, n_cells, 3), 1e-6)
        whole = (100 * graph.unary).astype(np.int32)
        bound = coarsening.cells_bound(whole.T[:3].copy(), cell, n_cells)
        assert bound == oracle.cells_bound(whole, cell, n_cells, 3)
