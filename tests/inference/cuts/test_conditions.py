"""Costs are refused if no cut is a minimum or if their sums overflow."""

import numpy as np
import pytest

from hybridseg.inference.cuts.conditions import as_pair_costs, check_groups, check_range
from hybridseg.inference.cuts.graph_cut import graph_cut
from hybridseg.inference.cuts.solve import solve_cuts
from hybridseg.pairwise import Cliques, CliqueTerm, Energy
from hybridseg.pairwise.edges import EdgeGroup


@pytest.mark.parametrize(
    ("unary", "weight"), [([[2**62, 0], [0, 1]], 1), ([[1, 0], [0, 1]], 2**62)]
)
def test_integers_that_would_wrap_are_refused(unary, weight):
    with pytest.raises(ValueError, match="integers whose sum may reach .*pass floats"):
        graph_cut(np.array(unary), ([0], [1], [weight]))
    found = graph_cut(np.array(unary) // 2, ([0], [1], [weight // 2]), seeds=[0, 1])
    assert found.energy == float(unary[0][0] // 2 + weight // 2)


def test_weights_beyond_floats_are_refused():
    weights = [np.full((2, 3), 1e308), np.full((3, 2), 1e308)]
    with pytest.raises(ValueError, match="weights holds costs whose sum overflows float64"):
        graph_cut(np.zeros((3, 3, 3)), weights)


def test_graphs_beyond_32_bits_are_refused(monkeypatch):
    monkeypatch.setattr("hybridseg.inference.cuts.conditions.MAX_ARCS", 14)
    with pytest.raises(ValueError, match="6 nodes and 7 edges; .*at most 6 edges"):
        graph_cut(np.zeros((2, 3, 2)), [np.zeros((1, 3)), np.zeros((2, 2))])


def test_cliques_beyond_32_bits_and_64_bits_are_refused(monkeypatch):
    huge = CliqueTerm(Cliques([0, 2], [0, 5], [2**59], [2**59]))
    with pytest.raises(ValueError, match="integers whose sum may reach .*pass floats"):
        solve_cuts(Energy(np.full((2, 3, 2), 2**59), [huge]))
    wide = CliqueTerm(Cliques([0, 6], range(6), [1], [3]))
    assert solve_cuts(Energy(np.zeros((2, 3, 3)), [wide])).energy == 0
    monkeypatch.setattr("hybridseg.inference.cuts.conditions.MAX_ARCS", 24)
    with pytest.raises(ValueError, match="cliques make a graph of 12 edges; expected at most 11"):
        solve_cuts(Energy(np.zeros((2, 3, 3)), [wide]))


def test_the_three_labels_that_break_the_triangle_inequality_are_named():
    squares = np.subtract.outer(np.arange(3), np.arange(3)) ** 2
    with pytest.raises(ValueError, match=r"\[0, 2\]=4 is more than \[0, 1\] \+ \[1, 2\]=2.*'swap'"):
        graph_cut(np.zeros((2, 2, 3)), [np.ones((1, 2)), np.ones((2, 1))], compatibility=squares)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_costs_of_pairs_are_none_for_potts_and_keep_their_kind(dtype):
    potts = (1 - np.eye(4)).astype(dtype)
    assert as_pair_costs("potts", 4, "expansion") is None
    assert as_pair_costs(potts, 4, "expansion") is None
    found = as_pair_costs(2 * potts, 4, "expansion")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, 2 * potts)


def test_expansions_take_every_metric_and_swaps_every_cost(rng):
    for _ in range(20):
        places = rng.normal(size=(5, 2))
        distance = np.linalg.norm(places[:, np.newaxis] - places, axis=-1)
        np.testing.assert_array_equal(as_pair_costs(distance, 5, "expansion"), distance)
        with pytest.raises(ValueError, match="breaks the triangle inequality"):
            as_pair_costs(distance**6, 5, "expansion")
        np.testing.assert_array_equal(as_pair_costs(distance**6, 5, "swap"), distance**6)


@pytest.mark.parametrize(("where", "told"), [((0, 1), ">= 0"), ((2, 2), "diagonal of zeros")])
def test_costs_that_are_not_submodular_are_named_by_their_labels(where, told):
    matrix = 2 - 2 * np.eye(3)
    matrix[where] = matrix[where[::-1]] = -1
    with pytest.raises(ValueError, match=rf"\[{where[0]}, {where[1]}\]=-1; .*{told}"):
        as_pair_costs(matrix, 3, "swap")


def edge(weight):
    return [EdgeGroup(np.array([0]), np.array([1]), np.array([weight]))]


def test_negative_weights_are_refused_and_zeros_are_not():
    check_groups(edge(0.0), (2,))
    check_groups([], (2,))
    for weight in (-1, -1e-300):
        with pytest.raises(ValueError, match="weights holds -1.*not submodular"):
            check_groups(edge(weight), (2,))


def test_sums_may_come_near_their_limits():
    whole, floats = np.zeros((2, 2), np.int64), np.zeros((2, 2))
    check_range(whole, edge(2**60))
    check_range(floats, edge(2**62))  # floats do not wrap
    check_range(floats, edge(4e307))
    with pytest.raises(ValueError, match="integers whose sum may reach"):
        check_range(whole, edge(2**60), largest=8)
    with pytest.raises(ValueError, match="integers whose sum may reach"):
        check_range(whole, edge(0), more=2.0**62)
    with pytest.raises(ValueError, match="costs whose sum overflows float64"):
        check_range(floats, edge(4e307), largest=8)


def test_a_few_great_costs_are_summed_exactly():
    """The largest cost times the number of pixels exceeds the limit, but the sum does not."""
    for costs in (np.zeros((1000, 2), np.int64), np.zeros((1000, 2))):
        costs[0] = [2**55, 0] if costs.dtype == np.int64 else [1e305, 0]
        check_range(costs, [])
        costs[:] = costs[0]
        with pytest.raises(ValueError, match="whose sum"):
            check_range(costs, [])
