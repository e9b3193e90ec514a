"""Branches carry the textbook's flow, whole or in bands."""

import numpy as np
import pytest

from hybridseg.kernels.cuts.grid_cut import _turn
from hybridseg.kernels.cuts.grid_pseudoflow import drain, make_branches, part_of_branches
from tests.kernels.cuts.grids import SHAPES, filled, mark_open, problem
from tests.oracles.cuts import grid_pseudoflow as oracle


def reaching(forest, first, stop):
    """The nodes of a band that can reach a deficit."""
    places = np.arange(forest.excess.size)
    inside = (places >= first) & (places < stop)
    reached, before = inside & (forest.excess < 0), -1
    while reached.sum() > before:
        before = reached.sum()
        for d, offset in enumerate(forest.offsets):
            reached |= inside & (forest.cap[d] > 0) & np.roll(reached, -offset)
    return reached


@pytest.mark.parametrize(("turned", "afresh"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("n_bands", [1, 2])
@pytest.mark.parametrize("shape", [*SHAPES, (14, 17), (4, 6, 7)])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_branches_carry_all_that_can_be_carried(shape, n_bands, turned, afresh, dtype):
    """No node with excess can reach a deficit; labels mark the nodes that reach none."""
    costs, weights = problem(shape, len(shape), 3, dtype)
    forest = filled(costs, weights).forest
    n_nodes = forest.excess.size
    layer = n_nodes // (shape[0] + 2)  # nodes of a row or a slice, with its border
    first, stop = 0, n_nodes
    if n_bands == 2:
        first = layer * ((shape[0] + 2) // 2)
    cap, excess = forest.cap.copy(), forest.excess.copy()
    if turned:
        _turn(forest, first, stop)
    before = forest.cap.copy(), forest.excess.copy()
    mark_open(forest, first, stop)
    branches = part_of_branches(make_branches(n_nodes, n_bands), first, stop, n_bands - 1)
    drain(forest, branches, first, stop, afresh)
    out = forest.out.copy()
    mark_open(forest, first, stop)
    np.testing.assert_array_equal(out, forest.out)
    flow, expected = oracle.drain(*before, forest.offsets, first, stop)
    reached = reaching(forest, first, stop)
    np.testing.assert_array_equal(reached, expected)
    assert not (reached & (forest.excess > 0)).any()
    assert (branches.label[reached] < n_nodes).all()
    assert (forest.excess[:first] == before[1][:first]).all()
    if turned:
        _turn(forest, first, stop)
    given = np.maximum(excess, 0).sum() - np.maximum(forest.excess, 0).sum()
    np.testing.assert_allclose(given, flow)
    assert (forest.cap >= 0).all()
    np.testing.assert_array_equal(forest.cap.sum(), cap.sum())
