"""A V-cycle is a symmetric, positive, approximate inverse; grids have the stated layout."""

from itertools import pairwise

import numpy as np
import pytest

from hybridseg.inference.random_walk.multigrid import Grid, Multigrid, Operator
from hybridseg.kernels.laplacian.random_walker import ground_seeds
from hybridseg.kernels.vectors.simd import aligned

SHAPES = [(1, 1), (1, 30), (30, 1), (13, 18), (40, 37), (5, 9, 12)]


def operator_on(rng, shape, contrast=4.0, n_seeds=2):
    """Random links, the ground from seeds of two labels, and the right side for the first label."""
    grid = Grid(shape)
    offsets = grid.axis_offsets()
    links = aligned((len(offsets), grid.size), np.float32)
    links[...] = np.exp(-contrast * rng.random(links.shape))
    codes = np.full(shape, -1, np.int32)
    if codes.size > n_seeds:
        codes.flat[rng.permutation(codes.size)[:n_seeds]] = np.arange(n_seeds) % 2
    ground, right = aligned((grid.size,), np.float32), np.zeros((1, grid.size))
    ground_seeds(links, grid.distances(offsets), grid.spread(codes, -2), ground, right)
    if codes.size == 1:
        ground[...] = 1
    return Operator(grid, offsets, links, ground), right[0], codes


@pytest.mark.parametrize("shape", SHAPES)
def test_values_come_back_from_the_bordered_layout(rng, shape):
    grid = Grid(shape)
    values = rng.random(shape)
    flat = grid.spread(values, -7.0)
    assert flat.shape == (grid.size,)
    assert np.count_nonzero(flat == -7) == grid.size - values.size
    np.testing.assert_array_equal(grid.gather(flat[np.newaxis])[0], values)
    numbers = grid.spread(np.arange(values.size).reshape(shape), -1)
    for offset, distance in zip(
        grid.axis_offsets(), grid.distances(grid.axis_offsets()), strict=True
    ):
        axis = offset.index(1)
        here = np.flatnonzero(numbers >= 0)
        there = numbers[(here + distance) % grid.size]
        place = np.array(np.unravel_index(numbers[here], shape))
        last = place[axis] == shape[axis] - 1
        assert (there[last] == -1).all()
        place[axis] += 1
        expected = np.ravel_multi_index(place[:, ~last], shape)
        np.testing.assert_array_equal(there[~last], expected)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_the_operator_is_symmetric_and_its_product_is_that_of_its_matrix(rng, shape):
    operator, right, _ = operator_on(rng, shape)
    matrix = operator.matrix()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(matrix), operator.diagonal, rtol=1e-6)
    inside = operator.grid.spread(np.ones(shape, bool), False)
    x = np.where(inside, rng.normal(size=len(inside)), 0)
    out = np.zeros_like(x)
    operator.add_product(x, right, -1.0, out)
    np.testing.assert_allclose(out[inside], (right - matrix @ x)[inside], atol=1e-6)
    bound = operator.greatest_eigenvalue(operator.diagonal)
    scaled = matrix / np.sqrt(np.outer(np.diag(matrix), np.diag(matrix)))
    assert np.linalg.eigvalsh(scaled).max() <= bound + 1e-6


@pytest.mark.parametrize("shape", SHAPES[3:])
def test_a_cycle_is_symmetric_and_takes_away_most_of_any_error(rng, shape):
    operator, _, codes = operator_on(rng, shape)
    unknown = operator.grid.spread(codes == -1, False)
    solver = Multigrid.build(operator)
    workspace = solver.workspace()

    def cycle(residual):
        workspace[0, : len(residual)] = residual
        return solver.apply(workspace)[: len(residual)].astype(float)

    one, two = (np.where(unknown, rng.normal(size=len(unknown)), 0) for _ in range(2))
    assert one @ cycle(two) == pytest.approx(two @ cycle(one), rel=1e-3, abs=1e-3)
    assert one @ cycle(one) > 0
    matrix = operator.matrix()
    error = np.where(unknown, rng.normal(size=len(unknown)), 0)
    sizes = [error @ matrix @ error]
    for _ in range(4):
        error = error - cycle(matrix @ error)
        sizes.append(error @ matrix @ error)
    assert all(after < 0.3 * before for before, after in pairwise(sizes))
