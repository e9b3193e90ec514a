import numpy as np
import pytest

from hybridseg.inference.cuts.flows import Flows, flow_moves
from hybridseg.inference.cuts.moves import EnergyGraph, Grid
from hybridseg.kernels.sparse import grid_messages
from hybridseg.kernels.sparse.potts_messages import edge_numbers
from hybridseg.kernels.vectors import simd as _simd
from tests.oracles.cuts import expansion_flow as energies
from tests.oracles.sparse import grid_messages as oracle

NEAR = [(0, 0, 1), (0, 1, 0)]
AROUND = [*NEAR, (0, 1, 1), (0, 1, -1)]
CUBE = [*AROUND, *((1, r, c) for r in (-1, 0, 1) for c in (-1, 0, 1))]
GRIDS = [
    ((1, 9, 3), NEAR),
    ((1, 19, 4), NEAR),
    ((1, 17, 5), AROUND),
    ((1, 24, 3), [(0, 1, -1)]),
    ((2, 10, 3), CUBE),
    ((3, 18, 3), [*NEAR, (1, 0, 0)]),
]


class Problem:
    """A grid's energy, as strips and as arcs between nodes in the order of the strips."""

    def __init__(self, shape, offsets, n_labels, dtype=np.int32):
        rng = np.random.default_rng(len(offsets) + n_labels)
        n_nodes = int(np.prod(shape))
        index = np.arange(n_nodes).reshape(shape)
        self.offsets = np.array(offsets)
        self.strips = grid_messages.make_strips(shape, self.offsets)
        self.costs = rng.integers(0, 200, (n_nodes, n_labels)).astype(dtype)
        self.weight = np.zeros((len(offsets), n_nodes), dtype)
        ends = []
        for k, offset in enumerate(offsets):
            p, q = index, index
            for axis, step in enumerate(offset):
                p = np.moveaxis(p, axis, 0)
                q = np.moveaxis(q, axis, 0)
                n = len(p)
                p = np.moveaxis(p[max(0, -step) : n - max(0, step)], 0, axis)
                q = np.moveaxis(q[max(0, step) : n - max(0, -step)], 0, axis)
            self.weight[k, p.ravel()] = rng.integers(100, 300, p.size)
            ends.append((p.ravel(), q.ravel(), np.full(p.size, k)))
        i, j, k = (np.concatenate(end) for end in zip(*ends, strict=True))
        self.number = k * n_nodes + i
        strength = self.weight.ravel()[self.number].astype(np.int64)
        self.graph = EnergyGraph.build(i, j, strength, self.costs.astype(np.int64))
        row, lane, self.order = oracle.make_strips(shape)
        self.place = (1 + row * (shape[2] + 1) + np.indices(shape)[2].ravel(), lane)
        rank = np.empty(n_nodes, int)
        rank[self.order] = np.arange(n_nodes)
        self.turned = np.where(rank[i] < rank[j], 1, -1)
        a, b = np.minimum(rank[i], rank[j]), np.maximum(rank[i], rank[j])
        self.arcs = EnergyGraph.build(a, b, strength, self.costs[self.order].astype(np.int64))
        self.edge = edge_numbers(self.arcs.first, self.arcs.head, self.arcs.rev)
        tail = np.repeat(np.arange(n_nodes), np.diff(self.arcs.first))
        number = {(t, h): e for t, h, e in zip(tail, self.arcs.head, self.edge, strict=True)}
        self.oracle_number = np.array([number[pair] for pair in zip(a, b, strict=True)])

    def in_strips(self):
        """Weight, costs, shares and messages as the kernels take them."""
        n_groups, (_, n_labels) = len(self.offsets), self.costs.shape
        cells = (self.strips.n_cells, n_labels, grid_messages.LANES)
        costs = _simd.aligned(cells, self.costs.dtype)
        grid_messages.to_strips(self.strips, self.costs, costs)
        weight = _simd.aligned((n_groups, cells[0], cells[2]), self.costs.dtype)
        for k in range(n_groups):
            grid_messages.to_strips(
                self.strips, self.weight[k][:, np.newaxis], weight[k][:, np.newaxis]
            )
        shares = [_simd.aligned((cells[0], cells[2]), np.float32) for _ in range(2)]
        grid_messages.count_shares(self.strips, self.offsets, *shares)
        return weight, costs, *shares, _simd.aligned((n_groups, *cells), np.float32)

    def on_edges(self, messages):
        """The messages (E, L) of the edges in the order of the oracle's numbers."""
        cell, lane = self.place
        k, v = self.number // len(self.costs), self.number % len(self.costs)
        rows = np.empty((len(k), self.costs.shape[1]), np.float32)
        rows[self.oracle_number] = messages[k, cell[v], :, lane[v]]
        return rows

    def settled(self):
        n_nodes, n_labels = self.costs.shape
        return (
            np.empty((n_labels, n_nodes), self.costs.dtype),
            np.zeros((n_labels, self.weight.size), self.costs.dtype),
            np.empty(n_nodes, np.int32),
        )


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("n_labels", [3, 9])
@pytest.mark.parametrize(("shape", "offsets"), GRIDS)
def test_strips_pass_the_messages_of_arcs_in_their_order(shape, offsets, n_labels, dtype):
    problem = Problem(shape, offsets, n_labels, dtype)
    weight, costs, share, last_share, messages = problem.in_strips()
    arcs = (problem.arcs.first, problem.arcs.head, problem.edge)
    unary = problem.arcs.unary.astype(np.float32)
    bounds = []
    for forward in (True, False, True, False):
        given = (*arcs, problem.arcs.weight.astype(np.float32), unary)
        expected = oracle.pass_messages(*given, problem.on_edges(messages), forward)
        plain = messages.copy()
        passed = (problem.strips, weight, costs, share)
        bound = grid_messages._pass_numbers(*passed, plain, forward)
        bounds.append(grid_messages.pass_messages(*passed, messages, forward))
        np.testing.assert_array_equal(messages, plain)
        assert bounds[-1] == bound
        np.testing.assert_allclose(problem.on_edges(messages), expected, rtol=1e-5, atol=0.01)
        spare = messages.copy()  # messages beyond the grid are zero
        spare[:, problem.place[0], :, problem.place[1]] = 0
        assert not spare.any()
    assert bounds == sorted(bounds)

    settled = problem.settled()
    given = (problem.strips, weight, costs, last_share)
    plain = problem.settled()
    bound = grid_messages._settle_numbers(*given, messages.copy(), *plain)
    assert bound >= bounds[-1] - 1e-3 * abs(bounds[-1])
    expected = oracle.settle_strips(
        *arcs, problem.arcs.weight, unary, problem.on_edges(messages), n_labels, problem.arcs.unary
    )
    assert grid_messages.settle_strips(*given, messages, *settled) == bound
    for found, twin in zip(settled, plain, strict=True):
        np.testing.assert_array_equal(found, twin)
    height, flow, labels = settled
    # flows are rounded to integers from float32, so they may differ by 1
    assert abs(bound - expected[0]) <= 2 * len(problem.number)
    np.testing.assert_array_equal(labels[problem.order], expected[3])
    np.testing.assert_allclose(height.T[problem.order], expected[1], rtol=0, atol=2 * 26)
    flows = flow.T[problem.number] * problem.turned[:, np.newaxis]
    np.testing.assert_allclose(flows, expected[2][problem.oracle_number], rtol=0, atol=2)


@pytest.mark.parametrize(("shape", "offsets"), GRIDS)
def test_no_flow_of_strips_changes_the_energy(shape, offsets):
    problem = Problem(shape, offsets, 4)
    rng = np.random.default_rng(0)
    graph = problem.graph._replace(grid=Grid(shape, problem.offsets))
    flows = Flows(graph, 2)
    joined = np.diff(graph.first) > 0  # for a single node only the order of costs remains
    trials = [rng.integers(0, 4, joined.size).astype(np.int32) * joined for _ in range(5)]
    scale = int(flows._weight[0]) // int(graph.weight[0])
    arcs = (graph.first, graph.head, flows._edge)
    constants = [
        energies.reparametrized_energy(*arcs, flows._weight, flows._flow, flows._height, labels)
        - scale * graph.energy(labels)
        for labels in trials
    ]
    assert len(set(constants)) == 1
    found = flow_moves(flows, 20)
    assert flows.bound <= found.energies[-1] <= min(map(graph.energy, trials))


@pytest.mark.parametrize(("shape", "offsets"), GRIDS)
def test_edges_have_the_number_of_their_pixel_and_offset(shape, offsets):
    problem = Problem(shape, offsets, 3)
    graph = problem.graph
    found = grid_messages.strip_edges(graph.first, graph.head, shape, problem.offsets)
    tail = np.repeat(np.arange(len(graph.unary)), np.diff(graph.first))
    expected = oracle.strip_edges(tail, graph.head, shape, problem.offsets)
    np.testing.assert_array_equal(found, expected)
    assert sorted(found[tail < graph.head]) == sorted(problem.number)


@pytest.mark.parametrize(("shape", "offsets"), GRIDS)
def test_strips_and_shares_equal_their_twins(shape, offsets):
    problem = Problem(shape, offsets, 3)
    _, costs, *shares, _ = problem.in_strips()
    expected = oracle.to_strips(shape, problem.costs, problem.strips.n_cells)
    np.testing.assert_array_equal(costs, expected)
    twins = oracle.count_shares(problem.arcs.first, problem.arcs.head)
    for share, twin in zip(shares, twins, strict=True):
        np.testing.assert_array_equal(share[problem.place][problem.order], twin)


def test_one_label_more_costs_nothing_where_no_node_wants_it():
    problem = Problem((1, 19, 4), NEAR, 7)
    weight, costs, share, _, messages = problem.in_strips()
    few = messages.copy()
    grid_messages.pass_messages(problem.strips, weight, costs, share, few, True)
    problem.costs = np.c_[problem.costs, np.full(len(problem.costs), 10**6, np.int32)]
    weight, costs, share, _, messages = problem.in_strips()
    grid_messages.pass_messages(problem.strips, weight, costs, share, messages, True)
    np.testing.assert_array_equal(messages[:, :, :7], few)
