"""Conjugate gradients solve systems with weak links; islands are the parts that these join."""

import numpy as np
import pytest

from hybridseg.inference.random_walk.deflated_cg import Islands, conjugate_gradients
from hybridseg.inference.random_walk.multigrid import Multigrid
from tests.inference.random_walk.test_multigrid import operator_on


def solved(operator, right, weak=0.1, most=10_000, tol=1e-9):
    islands = Islands.build(operator, weak, most)
    return conjugate_gradients(operator, Multigrid.build(operator), islands, right, tol, 300)


@pytest.mark.parametrize("contrast", [0.0, 4.0, 18.0])
@pytest.mark.parametrize("shape", [(1, 30), (13, 18), (24, 31), (5, 9, 12)])
def test_the_solution_is_that_of_the_matrix(rng, shape, contrast):
    operator, right, codes = operator_on(rng, shape, contrast)
    x, n_iter, error = solved(operator, right)
    expected = np.linalg.solve(operator.matrix(), right)
    unknown = operator.grid.spread(codes == -1, False)
    np.testing.assert_allclose(x[unknown], expected[unknown], atol=1e-6)
    assert error <= 1e-9
    assert n_iter < 100


def test_the_number_of_islands_is_bounded_and_does_not_change_the_solution(rng):
    operator, right, _ = operator_on(rng, (24, 31), 12.0)
    many, few = (Islands.build(operator, 0.1, most) for most in (10_000, 40))
    assert few.n_parts <= 40 < many.n_parts
    a, b = (solved(operator, right, most=most)[0] for most in (10_000, 40))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_sums_and_solutions_are_those_of_the_contracted_system(rng):
    operator, _, codes = operator_on(rng, (12, 15), 12.0)
    islands = Islands.build(operator, 0.1, 10_000)
    rest = np.where(islands.part >= 0, rng.normal(size=operator.grid.size), 0)
    inside = islands.part >= 0
    assert np.count_nonzero(inside) <= np.count_nonzero(codes == -1)
    expected = np.bincount(islands.part[inside], rest[inside], islands.n_parts)
    np.testing.assert_allclose(islands.sums(rest), expected, atol=1e-12)
    spread = np.zeros((operator.grid.size, islands.n_parts))
    spread[inside, islands.part[inside]] = 1
    contracted = spread.T @ operator.matrix() @ spread
    found = islands.solve(expected)
    assert found[0] == 0
    np.testing.assert_allclose(contracted @ found[1:], expected, atol=1e-6)


def test_without_iterations_the_error_is_returned(rng):
    operator, right, _ = operator_on(rng, (24, 31))
    islands = Islands.build(operator, 0.1, 10_000)
    _, n_iter, error = conjugate_gradients(
        operator, Multigrid.build(operator), islands, right, 1e-9, 0
    )
    assert n_iter == 0
    assert error > 1e-9
