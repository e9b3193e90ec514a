"""Moves that keep their flows are optimal, and flows do not change the energy."""

import numpy as np
import pytest

from hybridseg.inference.cuts.flows import Flows
from hybridseg.kernels.cuts.expansion_flow import expand_label, fit_flows, own_heights, refresh
from tests.kernels.cuts.problems import SHAPES, problem
from tests.oracles.cuts import expansion_flow as oracle


def searched(flows, alpha, move, nodes):
    """The nodes that the kernel returns: the changed ones, or those that hold excess."""
    first, head, *rest = flows._state()
    space = flows._spaces[0]
    given = (first, head, flows.graph.rev, *rest, flows._own, alpha, nodes, *space, move)
    n_found, n_seen = expand_label(*given)
    assert n_found <= n_seen
    assert (space[1][:, 0] == -1).all()  # the working space is clear for the next move
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
        if len(graph.weight):  # for a single node only the order of costs remains
            scale = flows._weight[-1] / graph.weight[-1]
            offset = [(whole(t) - constant) / scale - graph.energy(t) for t in trials]
            assert np.ptp(offset) <= 1e-5
        for step in range(9):
            before = [whole(t) for t in trials]
            start = flows.labels.copy()
            expected = oracle.expand_label(whole, start, step % 3)
            nodes = rng.permutation(np.repeat(np.arange(start.size, dtype=np.int32), 2))
            if step % 2:  # pushing first changes only where excess is left
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
            np.testing.assert_allclose(own, twin_own, rtol=0, atol=4)  # odd remainders are halved
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
