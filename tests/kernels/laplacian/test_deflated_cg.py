"""Parts and iterations equal those with matrices written out."""

import numpy as np
import pytest

from hybridseg.kernels.laplacian import deflated_cg
from tests.kernels.laplacian.problems import SHAPES, operator_on, places_of, steps_of, vectors
from tests.oracles.laplacian import deflated_cg as oracle
from tests.oracles.laplacian.random_walker import matrix


@pytest.mark.parametrize("n", [1, 5, 16, 5170])
def test_the_updates_of_an_iteration(rng, n, way):
    part = np.repeat(rng.integers(-1, 4, n), 5)[:n].astype(np.int32)
    part[n // 2 :] = rng.integers(-1, 4)
    values, rest = rng.normal(0, 1, 4), rng.normal(0, 1, n)
    padded = np.concatenate([[0], values])
    found = rng.normal(0, 1, n).astype(np.float32)
    largest, energy = deflated_cg.measure(part, padded, found, 0.3, rest)
    expected = oracle.measure(part, values, found, 0.3, rest)
    assert largest == pytest.approx(expected[0])
    assert energy == pytest.approx(expected[1], abs=1e-12 * n)

    along, product, x = rng.normal(0, 1, (3, n))
    single, sums = np.empty(n, np.float32), np.empty(4)
    wanted = oracle.advance(-0.2, along, product, x, rest)
    how = (-0.2, along, product, x, rest, 3.0, single, part, sums)
    assert deflated_cg.advance(*how) == np.abs(rest).max()
    assert x == pytest.approx(wanted[0])
    assert rest == pytest.approx(wanted[1])
    assert single == pytest.approx(3 * rest, rel=1e-6)
    assert sums == pytest.approx(oracle.sum_parts(part, rest, 4), abs=1e-12 * n)


@pytest.mark.parametrize("shape", [*SHAPES, (9, 30), (70, 90)])
def test_turning_to_a_new_direction(rng, shape, way):
    operator = operator_on(rng, shape)
    n, inside = operator.grid.size, places_of(operator.grid)
    part = np.full(n, -1, np.int32)
    part[inside] = rng.integers(-1, 3, len(inside)).cumsum() // len(inside)
    values = rng.normal(0, 1, part.max() + 1)
    found, along = vectors(rng, operator, 2)
    found, product = found.astype(np.float32), np.zeros(n)
    system = (operator.links.astype(np.float32), operator.strides, operator.ground)
    padded = np.concatenate([[0], values])
    wanted, expected = oracle.turn(part, values, found, 0.3, 0.7, matrix(*system), along)
    bend = deflated_cg.turn(part, padded, found, 0.3, 0.7, system, along, product)
    assert along == pytest.approx(wanted)
    assert product[inside] == pytest.approx(expected[inside], abs=1e-12)
    assert bend == pytest.approx(expected @ wanted)


@pytest.mark.parametrize("weak", [1e-9, 1e-3, 0.3, 2.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_parts(rng, shape, weak, way):
    operator = operator_on(rng, shape, weakest=-4)
    part = np.empty(operator.grid.size, np.int32)
    system = (operator.links, operator.ground, steps_of(operator), weak)
    n_parts = deflated_cg.strong_parts(*system, part)
    expected = oracle.strong_parts(*system)
    assert np.array_equal(part, expected[0])
    assert n_parts == expected[1]
    (x,), sums = vectors(rng, operator, 1), np.empty(n_parts)
    deflated_cg.sum_parts(part, x, sums)
    assert sums == pytest.approx(oracle.sum_parts(part, x, n_parts))
    added = oracle.add_parts(part, sums, x)
    deflated_cg.add_parts(part, sums, x)
    assert x == pytest.approx(added)

    pulls = deflated_cg.find_pulls(operator.links, system[2], operator.ground, part)
    wanted = oracle.find_pulls(operator.links, system[2], operator.ground, part)
    assert sorted(zip(*pulls, strict=True)) == sorted(wanted)
    left, found = sums.copy(), x.astype(np.float32)
    deflated_cg.take_pulls(*pulls, part, 0.3, found, left)
    dense = matrix(operator.links, system[2], operator.ground)
    assert left == pytest.approx(oracle.take_pulls(dense, part, 0.3, found, sums), abs=1e-12)


def test_sums_of_long_parts(rng, way):
    part = np.repeat([2, -1, 0, 0, 1, 2], [40, 9, 3, 31, 1, 17]).astype(np.int32)
    x, sums = rng.normal(0, 1, len(part)), np.empty(3)
    deflated_cg.sum_parts(part, x, sums)
    assert sums == pytest.approx(oracle.sum_parts(part, x, 3))
