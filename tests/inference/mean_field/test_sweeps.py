"""Sweeps agree by parity or by color, together or one by one, and in threads."""

import numba
import numpy as np
import pytest

from hybridseg.inference import grid_mean_field
from hybridseg.inference.mean_field.sweeps import GraphSweeps, GridSweeps, LoneSweeps, sweeps_over
from hybridseg.pairwise.edges import edge_groups, edge_list
from tests.inference.mean_field.problems import random_weights
from tests.oracles.dense.mean_field import softmax


def test_far_offsets(rng):
    """Parity does not color neighbors two pixels away; the graph's coloring is used."""
    weights = {(0, 2): rng.uniform(0, 1, (4, 5)), (1, -2): rng.uniform(0, 1, (3, 5))}
    unary = rng.normal(0, 1, (4, 7, 2)) * 2
    found = grid_mean_field(unary, weights, n_iter=300, tol=1e-7).marginals
    flat = grid_mean_field(unary.reshape(-1, 2), edge_list(edge_groups(weights, (4, 7)), (4, 7)))
    assert found.reshape(-1, 2) == pytest.approx(flat.marginals, abs=1e-3)


def test_no_edges_and_no_sweeps_give_the_softmax(rng):
    unary = rng.normal(0, 3, (4, 5, 3))
    zeros = [np.zeros((3, 5)), np.zeros((4, 4))]
    ones = [np.ones((3, 5)), np.ones((4, 4))]
    assert grid_mean_field(unary, zeros).marginals == pytest.approx(softmax(-unary), abs=1e-6)
    none = grid_mean_field(unary, ones, n_iter=0)
    assert none.marginals == pytest.approx(softmax(-unary), abs=1e-6)
    assert (none.n_iter, none.converged, none.changes) == (0, False, ())


def test_sweeps_that_are_watched_are_the_same(rng):
    """With a tolerance, sweeps run one by one; without one, several run in one call."""
    unary, weights = rng.normal(0, 1, (90, 33, 3)), random_weights(rng, (90, 33), 1)
    watched = grid_mean_field(unary, weights, tol=1e-30)
    together = grid_mean_field(unary, weights)
    assert np.array_equal(watched.marginals, together.marginals)
    assert watched.changes == together.changes


def test_threads_do_not_matter(rng):
    unary = rng.normal(0, 1, (200, 250, 3))
    weights = random_weights(rng, (200, 250), 2)
    before, found = numba.get_num_threads(), []
    try:
        for n in (1, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(n)
            found.append(grid_mean_field(unary, weights).marginals)
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(*found)


def test_dear_labels_of_a_graph_do_not_fade_out():
    found = grid_mean_field([[3.2e38, 3.2e38], [3e38, 3.2e38]], ([0], [1], [1.0]))
    np.testing.assert_allclose(found.marginals.sum(axis=1), 1)


def kinds_of_sweeps(rng, n_labels, pairs):
    """Sweeps over the same costs: on a grid, on a list of edges, and without edges."""
    rows = rng.normal(0, 2, (30, n_labels)).astype(np.float32)
    near = edge_groups(random_weights(rng, (5, 6), 1), (5, 6))
    i, j, weight = edge_list(near, (5, 6))
    far = edge_groups((i, j, weight), (30,))
    return rows, [
        sweeps_over(rows, groups, shape, pairs, 0.0)
        for groups, shape in ((near, (5, 6)), (far, (30,)), ([], (30,)))
    ]


@pytest.mark.parametrize("n_labels", [1, 2, 5, 9])
@pytest.mark.parametrize("potts", [True, False])
def test_all_kinds_begin_at_the_softmax_and_keep_sums(rng, n_labels, potts):
    size = 0 if potts else n_labels
    rows, kinds = kinds_of_sweeps(rng, n_labels, np.ones((size, size), np.float32))
    assert [type(kind) for kind in kinds] == [GridSweeps, GraphSweeps, LoneSweeps]
    for sweeps in kinds:
        np.testing.assert_allclose(sweeps.marginals(), softmax(-rows), atol=1e-6)
        assert len(sweeps.run(3)) == 3
        np.testing.assert_allclose(sweeps.marginals().sum(axis=1), 1, atol=1e-5)


def test_a_start_and_other_costs_lead_to_the_same_fixed_point(rng):
    """The weights are weak enough for a single fixed point."""
    given, kinds = kinds_of_sweeps(rng, 3, np.zeros((0, 0), np.float32))
    for sweeps in kinds:
        sweeps.set_costs(10 * given)
        sweeps.run(200)
        settled = sweeps.marginals().copy()
        sweeps.start_from(settled)
        np.testing.assert_array_equal(sweeps.marginals(), settled)
        assert max(sweeps.run(1)) < 1e-5
        np.testing.assert_allclose(sweeps.marginals(), settled, atol=1e-5)


def test_changes_are_the_largest_of_a_marginal(rng):
    for sweeps in kinds_of_sweeps(rng, 4, np.zeros((0, 0), np.float32))[1]:
        for _ in range(3):
            before = sweeps.marginals().copy()
            (change,) = sweeps.run(1)
            assert change == pytest.approx(np.abs(sweeps.marginals() - before).max(), abs=1e-6)
