"""Messages along arcs, and the flows that they leave, equal their twins."""

from itertools import product

import numpy as np
import pytest

from hybridseg.kernels.sparse import potts_messages
from tests.kernels.cuts.problems import SHAPES, energy_graph, problem
from tests.oracles.sparse import potts_messages as oracle


def rows(seed, shape, n_labels):
    """The arguments of message passing: integers in float32, with rows padded to 8 labels."""
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
    # flows are rounded to integers from float32, so they may differ by 1
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


def test_edges_are_numbered_as_by_their_twin():
    first, head, rev, *_ = energy_graph(np.random.default_rng(5), np.float64, 9, 3)
    expected = oracle.edge_numbers(first, head, rev)
    np.testing.assert_array_equal(potts_messages.edge_numbers(first, head, rev), expected)
