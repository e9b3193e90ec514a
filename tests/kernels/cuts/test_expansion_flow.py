"""Moves that keep their flows are the best ones, and change no energy."""

import numba
import numpy as np
import pytest

from hybridseg.inference.cuts import flows as flows_module
from hybridseg.inference.cuts.flows import Flows, flow_moves
from hybridseg.inference.cuts.graph_cut import graph_cut
from hybridseg.inference.cuts.moves import EnergyGraph, expand
from hybridseg.kernels.cuts.expansion_flow import expand_label, fit_flows, own_heights, refresh
from hybridseg.kernels.vectors import simd as _simd
from tests.kernels.cuts.problems import SHAPES, noise, problem
from tests.oracles.cuts import expansion_flow as oracle


def searched(flows, alpha, move, nodes):
    """What the kernel returns, and the nodes it names: those that changed, or hold excess."""
    first, head, *rest = flows._state()
    space = flows._spaces[0]
    given = (first, head, flows.graph.rev, *rest, flows._own, alpha, nodes, *space, move)
    n_found, n_seen = expand_label(*given)
    assert n_found <= n_seen
    assert (space[1][:, 0] == -1).all()  # the working space is fit for the next move
    assert not space[4].any()
    return space[3][1, :n_found].copy()


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_move_is_the_best_and_no_flow_changes_the_energy(shape, dtype):
    for seed in range(8):
        graph = problem(seed, shape, dtype=dtype)
        flows = Flows(graph, seed % 3)
        arcs = (graph.first, graph.head, flows._edge)
        rng = np.random.default_rng(seed)

        def whole(labels, flows=flows, arcs=arcs):
            return oracle.reparametrized_energy(
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
            nodes = rng.permutation(np.repeat(np.arange(start.size, dtype=np.int32), 2))
            if step % 2:  # what is sent ahead changes nothing but where excess is left
                nodes = searched(flows, step % 3, False, nodes)
                np.testing.assert_array_equal(flows.labels, start)
            changed = searched(flows, step % 3, True, nodes)
            assert sorted(changed) == np.flatnonzero(expected != start).tolist()
            np.testing.assert_array_equal(flows.labels, expected)
            marked, touched = flows._spaces[0][4], flows._touched
            n_touched = refresh(*flows._state(), flows._own, changed, marked, touched)
            assert set(touched[:n_touched]) == oracle.refresh(*arcs[:2], changed)
            assert n_touched == len(set(touched[:n_touched]))
            assert not marked.any()
            assert [whole(t) for t in trials] == before
            own, most = (np.empty_like(flows._own) for _ in range(2))
            own_heights(*flows._state(), own, most)
            np.testing.assert_array_equal(flows._own, own)
            twin_own, twin_most = oracle.own_heights(*flows._state())
            np.testing.assert_allclose(own, twin_own, rtol=0, atol=4)  # halves of odd rests
            np.testing.assert_allclose(most, twin_most, rtol=0, atol=0)


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
def test_what_is_sent_ahead_changes_no_move(seed, monkeypatch):
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
    monkeypatch.setattr(flows_module, "MIN_NODES_FOR_CELLS", len(graph.unary) + 1)
    fine = Flows(graph, 3)
    assert fine.bound == flows.bound <= found.energies[-1]
    started_lower = found.energies[0] < graph.energy(fine.labels)
    assert started_lower == (strength > 1)  # weak edges let pixels differ, and cells cannot


def test_without_edges_there_are_no_cells_to_start_from():
    graph = noise(1, (40, 40), 3, 0.0)
    flows = Flows(graph, 1)
    np.testing.assert_array_equal(flows.labels, graph.unary.argmin(axis=1))
    assert flow_moves(flows, 5).energies[-1] == pytest.approx(flows.bound, abs=1e-3)
