from itertools import product

import numba
import numpy as np
import pytest

from hybridseg.inference.cuts import flows as flows_module
from hybridseg.inference.cuts.flows import Flows, flow_moves
from hybridseg.inference.cuts.graph_cut import graph_cut
from hybridseg.inference.cuts.moves import EnergyGraph, expand
from hybridseg.kernels.cuts.expansion import move_graph
from hybridseg.kernels.cuts.expansion_flow import fit_flows, own_heights
from hybridseg.kernels.cuts.maxflow import build_arcs
from hybridseg.kernels.sparse import potts_messages, whole_costs
from hybridseg.kernels.vectors import simd as _simd
from tests.oracles.cuts import expansion as oracle
from tests.oracles.cuts import maxflow as cut_oracle

SHAPES = [(1, 1), (1, 6), (5, 1), (3, 3), (2, 2, 2)]


def problem(seed, shape=(3, 3), n_labels=3, dtype=np.int64):
    """A grid's energy with many ties, no cost so great that it would be cut off."""
    rng = np.random.default_rng(seed)
    index = np.arange(np.prod(shape)).reshape(shape)
    ends = [
        (np.moveaxis(index, axis, 0)[:-1].ravel(), np.moveaxis(index, axis, 0)[1:].ravel())
        for axis in range(len(shape))
    ]
    i, j = (np.concatenate(end) for end in zip(*ends, strict=True))
    weight = rng.integers(4, 10, i.size)
    if weight.size:
        weight[0] *= 1000 if seed % 5 == 4 else 1
    unary = rng.integers(0, 8, (index.size, n_labels))
    if dtype is np.float64:
        return EnergyGraph.build(i, j, weight * 0.37, unary * 0.23)
    return EnergyGraph.build(i, j, weight, unary)


def rows(seed, shape, n_labels):
    """What message passing gets, with rows filled up to 8 labels, in whole float32 numbers."""
    graph = problem(seed, shape, n_labels)
    edge = potts_messages.edge_numbers(graph.first, graph.head, graph.rev)
    height = np.full((len(graph.unary), -(-n_labels // 8) * 8), 2**20, np.int32)
    height[:, :n_labels] = graph.unary * 60
    return graph, edge, graph.weight * 60, height


@pytest.mark.parametrize("n_labels", [3, 8, 11])
@pytest.mark.parametrize("shape", SHAPES)
def test_messages_and_flows_equal_their_twins(shape, n_labels):
    graph, edge, weight, height = rows(1, shape, n_labels)
    unary = height.astype(np.float32)
    messages = np.zeros((len(weight) // 2, height.shape[1]), np.float32)
    arcs = (graph.first, graph.head, edge)
    for forward in (True, False, True, False):
        given = (*arcs, weight.astype(np.float32), unary)
        expected = oracle.send_messages(*given, messages, forward)
        bound = oracle.messages_bound(*given, messages, forward)
        plain = messages.copy()
        assert potts_messages._send_numbers(*given, plain, forward) == pytest.approx(bound, 1e-5)
        found = potts_messages.send_messages(*given, messages, forward)
        assert found == pytest.approx(bound, 1e-5)
        np.testing.assert_allclose(messages, expected, rtol=1e-5, atol=0.01)
        np.testing.assert_allclose(plain, messages, rtol=1e-6, atol=1e-3)
    labels, flow = np.zeros(len(unary), np.int32), np.zeros(messages.shape, np.int32)
    expected = oracle.settle_flows(*arcs, weight, unary, messages, n_labels, height)
    bound = potts_messages.settle_flows(
        *arcs, weight, unary, messages, n_labels, height, flow, labels
    )
    # whole flows are cut from float32, whose last bit may fall to either side
    assert abs(bound - expected[0]) <= 2 * len(weight)
    np.testing.assert_allclose(height, expected[1], rtol=0, atol=2 * 6)
    np.testing.assert_allclose(flow, expected[2], rtol=0, atol=2)
    assert (2 * np.abs(flow) <= weight[np.unique(edge, return_index=True)[1]][:, None] + 1).all()
    np.testing.assert_array_equal(labels, expected[3])


def test_a_pass_over_a_chain_finds_its_optimum():
    graph, edge, weight, height = rows(2, (1, 6), 3)
    unary, messages = height.astype(np.float32), np.zeros((5, 8), np.float32)
    arcs = (graph.first, graph.head, edge, weight.astype(np.float32))
    potts_messages.send_messages(*arcs, unary, messages, True)
    bound = potts_messages.send_messages(*arcs, unary, messages, False)
    least = min(graph.energy(np.array(labels, np.int32)) for labels in product(range(3), repeat=6))
    assert bound == pytest.approx(60 * least)


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
    name = "shift_costs" if dtype is np.int64 else "round_costs"
    getattr(whole_costs, name)(unary, least, limit, 7, costs)
    np.testing.assert_array_equal(costs, getattr(oracle, name)(unary, least, limit, 7))


def test_messages_are_passed_while_they_pay():
    graph = noise(5, (30, 30), 4, 0.5)
    sent = []
    bounds = iter([0.0, 10.0, 0.0, 14.0, 0.0, 15.9, 0.0])
    flows_module._sweep_messages(lambda way: sent.append(way) or next(bounds), 2.0, None)
    assert sent == [True, False] * 3
    few, many = (Flows(graph, n).bound for n in (2, 100))
    assert few < Flows(graph, None).bound <= many


def test_vectors_and_numbers_agree_where_there_are_no_vectors(monkeypatch):
    graph = problem(3, (4, 5), 5)
    with_vectors = Flows(graph, 3)
    monkeypatch.setattr(_simd, "ENABLED", False)
    without = Flows(graph, 3)
    assert abs(with_vectors.bound - without.bound) <= 1
    np.testing.assert_array_equal(with_vectors.labels, without.labels)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_move_is_the_best_and_no_flow_changes_the_energy(shape, dtype):
    for seed in range(8):
        graph = problem(seed, shape, dtype=dtype)
        flows = Flows(graph, seed % 3)
        arcs = (graph.first, graph.head, flows._edge)
        rng = np.random.default_rng(seed)

        def whole(labels, flows=flows, arcs=arcs):
            return oracle.reparametrised_energy(
                *arcs, flows._weight, flows._flow, flows._height, labels
            )

        if seed % 2:
            flows.start_from(rng.integers(0, 3, len(graph.unary)))
        trials = rng.integers(0, 3, (20, len(graph.unary))).astype(np.int32)
        constant = whole(trials[0])
        if len(graph.weight):  # a lone node's costs keep their order only
            scale = flows._weight[-1] / graph.weight[-1]
            offset = [(whole(t) - constant) / scale - graph.energy(t) for t in trials]
            assert np.ptp(offset) <= 1e-5
        for step in range(9):
            before = [whole(t) for t in trials]
            start = flows.labels.copy()
            expected = oracle.expand_label(whole, start, step % 3)
            assert flows.expand(step % 3) == (expected != start).any()
            np.testing.assert_array_equal(flows.labels, expected)
            assert [whole(t) for t in trials] == before
            own, most = (np.empty_like(flows._own) for _ in range(2))
            own_heights(*flows._state(), own, most)
            np.testing.assert_array_equal(flows._own, own)
            twin_own, twin_most = oracle.own_heights(*flows._state())
            np.testing.assert_allclose(own, twin_own, rtol=0, atol=4)  # halves of odd rests
            np.testing.assert_allclose(most, twin_most, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_sent_ahead_changes_no_move(seed, monkeypatch):
    graph = noise(seed, (30, 34), 5, 0.8)
    alone, ahead = Flows(graph, 2), Flows(graph, 2)
    monkeypatch.setattr(flows_module, "MANY", np.inf)
    ahead._spaces = [ahead._working_space() for _ in range(3)]
    labels = ahead.labels.copy()
    arcs = (graph.first, graph.head, ahead._edge)

    def energy(labels):
        given = (ahead._weight, ahead._flow, ahead._height, labels)
        return oracle.reparametrised_energy(*arcs, *given)

    moved = expand(graph, labels, 1)
    before = energy(labels), energy(moved)
    ahead.search_ahead(0)
    np.testing.assert_array_equal(ahead.labels, labels)
    assert (energy(labels), energy(moved)) == before
    waiting = [sum(len(part[0]) for part in flows._waiting) for flows in (ahead, alone)]
    assert waiting[0] < waiting[1]
    for step in range(15):
        ahead.search_ahead(step)
        assert ahead.expand(step % 5) == alone.expand(step % 5)
        np.testing.assert_array_equal(ahead.labels, alone.labels)


def test_one_thread_finds_what_two_find():
    n_threads = numba.get_num_threads()
    if n_threads == 1:
        pytest.skip("needs two threads")
    unary = np.random.default_rng(1).integers(0, 1000, (100, 110, 4))
    weights = [np.full((99, 110), 900), np.full((100, 109), 900)]
    found = []
    try:
        for n in (1, 2):
            numba.set_num_threads(n)
            found.append(graph_cut(unary, weights))
    finally:
        numba.set_num_threads(n_threads)
    np.testing.assert_array_equal(found[0].labels, found[1].labels)
    assert found[0].energies == found[1].energies
    assert found[0].lower_bound == found[1].lower_bound


def test_after_a_move_its_nodes_and_their_neighbours_wait():
    unary = np.full((9, 3), [5, 5, 0])
    unary[4] = [0, 20, 20]
    i, j = np.arange(8), np.arange(1, 9)
    graph = EnergyGraph.build(i, j, np.full(8, 3), unary)
    flows = Flows(graph, 0)
    flows.start_from(np.full(9, 2))
    before = [len(lists) for lists in flows._waiting]
    assert flows.expand(0)
    assert np.flatnonzero(flows.labels != 2).tolist() == [4]
    assert [len(lists) for lists in flows._waiting] == [0, before[1] + 1, before[2] + 1]
    expected = oracle.refresh(graph.first, graph.head, np.array([4]))
    assert set(flows._waiting[1][-1].tolist()) == expected == {3, 4, 5}
    assert len(flows._waiting[1][-1]) == 3


def test_the_first_flows_are_fitted_to_any_labels():
    rng = np.random.default_rng(6)
    moved = 0
    for seed in range(6):
        flows = Flows(problem(seed, (3, 4)), 4)
        flows.labels = rng.integers(0, 3, 12).astype(np.int32)
        before = flows._flow.copy()
        flow, height = oracle.fit_flows(*flows._state())
        fit_flows(*flows._state())
        np.testing.assert_array_equal(flows._flow, flow)
        np.testing.assert_array_equal(flows._height, height)
        moved += (flow != before).any()
    assert moved


def noise(seed, shape, n_labels, strength):
    """Costs that tell little about a pixel, and edges that tell it to do as its neighbours."""
    graph = problem(seed, shape, n_labels, np.float64)
    rng = np.random.default_rng(seed)
    graph.weight[:] = strength
    return graph._replace(unary=rng.normal(size=graph.unary.shape))


def test_a_few_nodes_with_excess_are_searched_from_without_a_sweep():
    for n_labels, row in ((3, 17), (4, 3)):
        graph = noise(row, (40, 45), n_labels, 0.8)
        flows = Flows(graph, 5)
        flow_moves(flows, 20)
        labels = flows.labels.copy()
        labels[row * 45 + 5] = (labels[row * 45 + 5] + 1) % n_labels  # 1 of 1800 is to be mended
        for alpha in range(n_labels):
            flows.start_from(labels)
            flows.expand(alpha)
            np.testing.assert_array_equal(flows.labels, expand(graph, labels, alpha))


@pytest.mark.parametrize("strength", [0.2, 3.0])
def test_moves_that_start_from_cells_end_where_no_move_helps(strength, monkeypatch):
    graph = noise(0, (36, 40), 4, strength)
    flows = Flows(graph, 3)
    found = flow_moves(flows, 20)
    assert found.converged
    for alpha in range(4):
        moved = expand(graph, found.labels, alpha)
        assert graph.energy(moved) >= found.energies[-1] - 1e-6
    monkeypatch.setattr(flows_module, "SMALLEST", len(graph.unary) + 1)
    fine = Flows(graph, 3)
    assert fine.bound == flows.bound <= found.energies[-1]
    started_lower = found.energies[0] < graph.energy(fine.labels)
    assert started_lower == (strength > 1)  # weak edges let pixels differ, and cells cannot


def test_without_edges_there_are_no_cells_to_start_from():
    graph = noise(1, (40, 40), 3, 0.0)
    flows = Flows(graph, 1)
    np.testing.assert_array_equal(flows.labels, graph.unary.argmin(axis=1))
    assert flow_moves(flows, 5).energies[-1] == pytest.approx(flows.bound, abs=1e-3)


@pytest.mark.parametrize("kind", ["expansion", "swap"])
def test_the_graph_of_a_move_has_its_energy(kind):
    rng = np.random.default_rng(2)
    steps = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    cost = steps if kind == "expansion" else steps**2
    for seed in range(10):
        graph = problem(seed, (3, 3), 4)
        labels = rng.integers(0, 4, 9).astype(np.int32)
        proposal = np.full(9, 1, np.int32)
        if kind == "swap":
            labels = np.where(labels == 1, 2, labels).astype(np.int32)
            proposal = np.where(labels == 2, 1, labels).astype(np.int32)
        cap, excess = np.empty_like(graph.weight), np.empty(9, np.int64)
        arcs = (graph.first, graph.head, graph.weight)
        move_graph(*(*arcs[:2], graph.weight, graph.unary, labels, proposal, cost, cap, excess))
        assert (cap >= 0).all()
        nothing = np.zeros(9, bool)
        stay = oracle.move_graph(*arcs, labels, proposal, cost, graph.unary, nothing)
        for _ in range(20):
            taken = (rng.random(9) < 0.5) & (labels != proposal)
            rise = oracle.move_graph(*arcs, labels, proposal, cost, graph.unary, taken) - stay
            capacity = cut_oracle.cut_capacity(graph.first, graph.head, cap, excess, taken)
            assert capacity - np.maximum(excess, 0).sum() == rise


def test_build_arcs_is_what_the_moves_expect():
    first, head, rev, _ = build_arcs(2, np.zeros(1, np.int32), np.ones(1, np.int32), np.ones(1))
    assert (first.tolist(), head.tolist(), rev.tolist()) == ([0, 1, 2], [1, 0], [1, 0])
