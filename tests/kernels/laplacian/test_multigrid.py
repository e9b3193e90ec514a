"""Transfers between grids and the V-cycle equal those with matrices written out."""

import numpy as np
import pytest

from hybridseg.inference.random_walk.multigrid import (
    Grid,
    Multigrid,
    Operator,
    _coarsen,
    _rows,
    _stencil,
)
from hybridseg.kernels.laplacian import multigrid as kernels
from tests.kernels.laplacian.problems import SHAPES, operator_on, places_of, steps_of, vectors
from tests.oracles.laplacian import multigrid as oracle
from tests.oracles.laplacian.random_walker import matrix

LARGER = [s for s in SHAPES if max(s) > 1]


def written_out(operator):
    """The matrix of the pixels without the border."""
    inside = places_of(operator.grid)
    dense = matrix(operator.links, steps_of(operator), operator.ground)
    return dense[np.ix_(inside, inside)]


def interpolation_of(operator):
    links = np.stack([operator.grid.gather(row)[0] for row in operator.links])
    ground = operator.grid.gather(operator.ground)[0]
    return oracle.interpolation(links, operator.offsets, ground)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [*LARGER, (3, 40), (4, 33), (2, 3, 37)])
def test_weights_and_coarse_links_equal_their_twins(rng, shape, full, way):
    operator = operator_on(rng, shape, full=full)
    fine = operator.grid
    coarse = Grid(tuple((n + 1) // 2 for n in shape))
    offsets = coarse.all_offsets()
    stencil = _stencil(operator.offsets, tuple(n > 1 for n in shape), offsets)
    base, to = _rows(fine, coarse)
    how = (base, to, stencil.near @ fine.strides)
    weights = np.zeros((len(how[2]), coarse.size))
    system = (operator.links, operator.ground)
    kernels.interpolation(*system, *how, stencil.first, stencil.interpolation_table(fine), weights)
    inside, places = places_of(fine), places_of(coarse)
    expected = interpolation_of(operator)
    for column, place in enumerate(places):
        one, reached = np.zeros(coarse.size), np.zeros(fine.size)
        one[place] = 1
        kernels.prolong(*how, weights, one, reached)
        assert reached[inside] == pytest.approx(expected[:, column], abs=1e-12)
    links = np.zeros((len(offsets), coarse.size))
    sums = stencil.product_table(fine, coarse)
    kernels.coarse_links(operator.links, operator.diagonal, *how, weights, sums, links)
    found = -matrix(links, coarse.distances(offsets), np.zeros(coarse.size))
    found = found[np.ix_(places, places)]
    off = oracle.coarse_links(expected, written_out(operator))
    assert found - np.diag(np.diag(found)) == pytest.approx(off, abs=1e-12)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [*LARGER, (3, 40), (4, 33), (2, 3, 37)])
def test_rows_go_down_and_up_as_by_their_twins(rng, shape, full, way):
    operator = operator_on(rng, shape, full=full)
    p = interpolation_of(operator)
    transfer, coarse = _coarsen(operator, operator.diagonal)
    inside, places = places_of(operator.grid), places_of(coarse.grid)
    x = rng.normal(0, 1, (2, coarse.grid.size))
    x[:, np.setdiff1d(np.arange(coarse.grid.size), places)] = 0
    wide = transfer.weights.astype(np.float64)
    how = (transfer.base, transfer.coarse, transfer.moves, wide)
    for row, fine in zip(x, vectors(rng, operator), strict=True):
        reached, below = np.zeros(operator.grid.size), np.zeros(coarse.grid.size)
        kernels.prolong(*how, row, reached)
        assert reached[inside] == pytest.approx(oracle.prolong(p, row[places]), abs=1e-6)
        kernels.restrict(*how, fine, below)
        assert below[places] == pytest.approx(oracle.restrict(p, fine[inside]), abs=1e-5)
    galerkin = p.T @ written_out(operator) @ p
    assert written_out(coarse) == pytest.approx(galerkin, abs=1e-12)
    assert coarse.ground[places] == pytest.approx(galerkin.sum(axis=1), abs=1e-12)


CYCLES = [(33, 48), (97, 110), (9, 12, 11), (1, 900), (2, 700), (3, 3, 200), (5, 5, 600)]


def levels_of(operator, solver):
    """The solver's levels with matrices written out."""
    levels = []
    for keeps, gains in zip(solver.keeps, solver.gains, strict=True):
        dense = written_out(operator)
        levels.append((dense, interpolation_of(operator), keeps, gains))
        operator = _coarsen(operator, operator.diagonal)[1]
    return [*levels, (written_out(operator), None, None, None)]


@pytest.mark.parametrize("shape", [(4, 5), (1, 7), (40, 37), (9, 12, 11), (1, 900), (3, 3, 200)])
def test_the_cycle_equals_its_twin(rng, shape, way):
    operator = operator_on(rng, shape, weakest=-1)
    solver = Multigrid.build(operator)
    assert (len(solver.keeps) == 0) == (np.prod(shape) <= 20)
    assert (solver.keeps[:, :1] == 0).all()  # the twin's steps also begin at 0
    inside, rooms = places_of(operator.grid), solver.workspace()
    levels = levels_of(operator, solver)
    for right in vectors(rng, operator, 2, np.float32):
        rooms[0, : len(right)] = right
        row = kernels.cycle(solver.hierarchy, rooms, solver.keeps, solver.gains)
        found = rooms[row, : len(right)][inside]
        expected = oracle.cycle(levels, right[inside].astype(float))
        assert found == pytest.approx(expected, abs=1e-3 * np.abs(expected).max())


def test_interpolation_weights(rng):
    """A pixel takes the mean of both neighbors, weighted by its links; absent links count as 0."""
    grid = Grid((1, 3))
    links, ground = np.zeros((1, grid.size)), grid.spread(np.zeros((1, 3)), 1.0)
    links[0, 1:3] = [1.0, 3.0]
    transfer, _ = _coarsen(Operator(grid, grid.axis_offsets(), links, ground), ground + 1)
    assert transfer.weights[:, 1:3].T.tolist() == [[1, 0, 0.25], [1, 0.75, 0]]
    expected = oracle.interpolation(links[:, np.newaxis, 1:4], ((0, 1),), np.zeros((1, 3)))
    assert expected[1].tolist() == [0.25, 0.75]


@pytest.mark.compiled
@pytest.mark.parametrize("shape", CYCLES)
def test_the_cycle_is_symmetric_positive_and_contracts(rng, shape, way):
    operator = operator_on(rng, shape, weakest=-1)
    solver = Multigrid.build(operator)
    assert len(solver.keeps) > 0
    rooms = solver.workspace()

    def solve(right):
        rooms[0, : len(right)] = right
        return solver.apply(rooms).astype(float)

    x, y = vectors(rng, operator, 2, np.float32)
    mx, my = solve(x), solve(y)
    assert mx @ y == pytest.approx(x @ my, rel=1e-3, abs=1e-3)
    assert mx @ x > 0
    dense = matrix(operator.links, steps_of(operator), operator.ground)
    (error,) = vectors(rng, operator, 1)
    start = float(error @ dense @ error)
    for _ in range(10):
        error = error - solve(error @ dense)
    assert float(error @ dense @ error) < 1e-4 * start


@pytest.mark.parametrize("n", [1, 2, 30])
def test_inverse(rng, n):
    root = rng.normal(0, 1, (n, n))
    matrix = root @ root.T + 0.1 * np.eye(n)
    found = matrix.copy()
    kernels.invert(found)
    assert found == pytest.approx(oracle.invert(matrix), rel=1e-8, abs=1e-8)
