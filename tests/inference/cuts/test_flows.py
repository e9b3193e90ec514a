"""Expansion moves that reuse flows are optimal, whatever the initial flows."""

import numba
import numpy as np
import pytest

from hybridseg.inference.cuts import flows as flows_module
from hybridseg.inference.cuts.flows import Flows, flow_moves, merge
from hybridseg.inference.cuts.graph_cut import graph_cut
from hybridseg.inference.cuts.moves import EnergyGraph, expand
from hybridseg.kernels.sparse import coarsening, grid_messages
from hybridseg.kernels.vectors import simd as _simd
from tests.inference.cuts.problems import case
from tests.kernels.cuts.problems import noise, problem
from tests.oracles import energy as energy_oracle
from tests.oracles.cuts import expansion_flow as oracle


@pytest.mark.compiled
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


@pytest.mark.parametrize("seed", range(4))
def test_flow_that_is_sent_ahead_changes_no_move(seed, monkeypatch):
    graph = noise(seed, (30, 34), 5, 0.8)
    alone, ahead = Flows(graph, 2), Flows(graph, 2)
    monkeypatch.setattr(flows_module, "MIN_WAITING", np.inf)
    ahead._spaces = [ahead._working_space() for _ in range(3)]
    labels = ahead.labels.copy()
    arcs = (graph.first, graph.head, ahead._edge)

    def energy(labels):
        given = (ahead._weight, ahead._flow, ahead._height, labels)
        return oracle.reparametrized_energy(*arcs, *given)

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


@pytest.mark.compiled
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


def test_after_a_move_its_nodes_and_their_neighbors_wait():
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


def test_a_few_nodes_with_excess_are_searched_from_without_a_sweep():
    for n_labels, row in ((3, 17), (4, 3)):
        graph = noise(row, (40, 45), n_labels, 0.8)
        flows = Flows(graph, 5)
        flow_moves(flows, 20)
        labels = flows.labels.copy()
        labels[row * 45 + 5] = (labels[row * 45 + 5] + 1) % n_labels  # 1 of 1800 nodes changes
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
    monkeypatch.setattr(flows_module, "MIN_NODES_FOR_CELLS", len(graph.unary) + 1)
    fine = Flows(graph, 3)
    assert fine.bound == flows.bound <= found.energies[-1]
    started_lower = found.energies[0] < graph.energy(fine.labels)
    assert started_lower == (strength > 1)  # weak edges let pixels differ, but cells cannot


def test_without_edges_there_are_no_cells_to_start_from():
    graph = noise(1, (40, 40), 3, 0.0)
    flows = Flows(graph, 1)
    np.testing.assert_array_equal(flows.labels, graph.unary.argmin(axis=1))
    assert flow_moves(flows, 5).energies[-1] == pytest.approx(flows.bound, abs=1e-3)


def test_cells_of_cells_pay_what_their_nodes_pay():
    rng = np.random.default_rng(0)
    graph = fine = problem(2, (6, 9), 4, np.float64)
    whole = np.arange(54, dtype=np.int32)
    for _ in range(3):
        cell, n_cells = coarsening.pair_nodes(graph.first, graph.head, graph.weight)
        graph = merge(graph, cell, n_cells, 4)
        whole = cell[whole]
        labels = rng.integers(0, 4, n_cells).astype(np.int32)
        assert graph.energy(labels) == pytest.approx(fine.energy(labels[whole]), rel=1e-6)


def test_images_are_passed_in_strips_and_small_ones_by_arcs(monkeypatch):
    rng = np.random.default_rng(3)
    seen = []
    monkeypatch.setattr(
        "hybridseg.inference.cuts.flows.make_strips",
        lambda *given: seen.append(given[0]) or grid_messages.make_strips(*given),
    )
    for shape in [(30, 9), (8, 30), (30, 2), (3, 9, 4)]:
        unary = rng.integers(0, 100, (*shape, 3))
        weights = [
            np.full([n - (a == b) for b, n in enumerate(shape)], 20) for a in range(len(shape))
        ]
        graph_cut(unary, weights)
    assert seen == [(1, 30, 9), (3, 9, 4)]


def test_general_moves_agree_with_those_that_keep_their_flows():
    """2 x Potts uses the general method, which also ends where no expansion helps."""
    unary, weights = case(np.random.default_rng(10), (9, 11), 4)
    general = graph_cut(2 * unary, weights, compatibility=2 - 2 * np.eye(4, dtype=int))
    again = graph_cut(unary, weights, init=general.labels)
    assert general.energy == 2 * again.energies[0] == 2 * again.energies[-1]
    assert again.lower_bound <= again.energy


def test_no_expansion_is_left_where_the_flows_converged():
    """The expected moves are cuts from scratch, without kept flows; some costs exceed 32 bits."""
    for factor in (1, 2**40, 0.1):
        unary, weights = case(np.random.default_rng(12), (13, 9), 5)
        unary = unary * factor
        weights = {o: w * factor for o, w in weights.items()}
        found = graph_cut(unary, weights)
        edges = energy_oracle.grid_edges(weights, (13, 9))
        i, j = (np.array([np.ravel_multi_index(e[end], (13, 9)) for e in edges]) for end in (0, 1))
        graph = EnergyGraph.build(i, j, np.array([e[2] for e in edges]), unary.reshape(-1, 5))
        for alpha in range(5):
            moved = expand(graph, found.labels.ravel(), alpha)
            assert graph.energy(moved) >= found.energy * (1 - 1e-7)
