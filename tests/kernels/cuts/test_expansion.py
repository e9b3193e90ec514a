"""The graphs of moves and the energy equal their twins."""

import numpy as np
import pytest

from hybridseg.kernels.cuts.expansion import expansion_graph, move_graph, potts_energy
from tests.kernels.cuts.problems import energy_graph, problem
from tests.oracles.cuts import expansion as oracle
from tests.oracles.cuts.maxflow import cut_capacity


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_potts_energy_and_expansion_graph_equal_their_twins(dtype):
    rng = np.random.default_rng(4)
    for _ in range(10):
        first, head, _, weight, unary, labels = energy_graph(rng, dtype)
        expected = oracle.potts_energy(first, head, weight, unary, labels)
        assert potts_energy(first, head, weight, unary, labels) == expected
        cap, excess = np.empty_like(weight), np.empty(labels.size, dtype)
        expansion_graph(first, head, weight, unary, labels, 2, cap, excess)
        twin_cap, twin_excess = oracle.expansion_graph(first, head, weight, unary, labels, 2)
        # the twin includes the nodes with label alpha; they are on the source side
        for _ in range(20):
            taken = (rng.random(labels.size) < 0.5) | (labels == 2)
            kept = labels == 2
            costs = [
                cut_capacity(first, head, c, e, taken) - np.maximum(e, 0).sum()
                for c, e in ((cap, excess), (twin_cap, np.where(kept, 0, twin_excess)))
            ]
            moved = np.where(taken, 2, labels)
            rise = oracle.potts_energy(first, head, weight, unary, moved) - expected
            assert costs[0] == rise
            assert costs[1] == rise


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
            capacity = cut_capacity(graph.first, graph.head, cap, excess, taken)
            assert capacity - np.maximum(excess, 0).sum() == rise
