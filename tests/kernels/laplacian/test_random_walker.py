"""The walker's kernels beside matrices written out."""

import numpy as np
import pytest

from hybridseg.inference.random_walk.multigrid import Grid, Multigrid, Operator, _coarsen
from hybridseg.kernels.laplacian import deflated_cg, multigrid
from hybridseg.kernels.laplacian import random_walker as kernels
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.vectors.assembly import assembly_of, on_x86
from tests.oracles.laplacian import random_walker as oracle

#: Without and, unless they are switched off, with explicit vectors.
WAYS = sorted({False, simd.ENABLED})
SHAPES = [(1, 1), (1, 7), (6, 1), (2, 2), (5, 8), (6, 9), (1, 3, 4), (3, 4, 5), (4, 4, 3)]


@pytest.fixture(params=WAYS, ids=lambda way: "vectors" if way else "numbers")
def way(request, monkeypatch):
    monkeypatch.setattr(simd, "ENABLED", request.param)


def operator_on(rng, shape, *, full=False, weakest=-6, grounded=0.1):
    """Links over many orders of magnitude, some missing, and a little ground."""
    grid = Grid(shape)
    offsets = grid.all_offsets() if full else grid.axis_offsets()
    links = np.zeros((len(offsets), *grid.bordered))
    for row, offset in zip(links, offsets, strict=True):
        from_ = tuple(
            slice(b + max(0, -o), b + n - max(0, o))
            for b, n, o in zip(grid.border, shape, offset, strict=True)
        )
        if all(s.start < s.stop for s in from_):
            strengths = 10 ** rng.uniform(weakest, 0, row[from_].shape)
            row[from_] = strengths * (rng.random(row[from_].shape) < 0.9)
    ground = grid.spread((rng.random(shape) < grounded) * 0.5 + 1e-8, 1.0)
    return Operator(grid, offsets, links.reshape(len(offsets), -1), ground)


def vectors(rng, operator, n_rows=2, dtype=float):
    grid = operator.grid
    rows = rng.normal(0, 1, (n_rows, *grid.shape)).astype(dtype)
    return np.stack([grid.spread(row, 0) for row in rows])


def steps_of(operator):
    return operator.grid.distances(operator.offsets)


def places_of(grid):
    return np.flatnonzero(grid.spread(np.ones(grid.shape, bool), False))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (70, 60)])
def test_products_and_smoothing(rng, shape, full, dtype, way):
    if shape == (70, 60) and full:
        return
    operator, near = operator_on(rng, shape, full=full), 1e-5 if dtype == np.float32 else 1e-12
    xs, rights, steps = (vectors(rng, operator, dtype=dtype) for _ in range(3))
    links, ground = operator.links.astype(dtype), operator.ground.astype(dtype)
    system = (links, operator.strides, ground)
    inverse = (1 / operator.diagonal).astype(dtype)
    for x, right, step in zip(xs, rights, steps, strict=True):
        out = np.zeros_like(x)
        kernels.multiply(*system, x, right, -2.0, out)
        assert out == pytest.approx(oracle.multiply(*system, x, right, -2.0), abs=10 * near)
        expected = oracle.smooth(*system, inverse, x, right, step, 0.3, 0.8)
        kernels.smooth(*system, inverse, x, right, step, 0.3, 0.8, out)
        assert step == pytest.approx(expected[0], rel=100 * near, abs=100 * near)
        assert out == pytest.approx(expected[1], rel=100 * near, abs=100 * near)


def test_links_far_below_rounding_survive_in_32_bits():
    """Two pixels that hang on by 1e-9: their common value is drawn by that link alone."""
    grid = Grid((1, 3))
    links = np.zeros((1, grid.size), np.float32)
    links[0, 1:3] = [1e-9, 1.0]
    out, x = np.zeros(grid.size, np.float32), np.zeros(grid.size, np.float32)
    x[2:4] = 1.0
    ground = np.zeros(grid.size, np.float32)
    kernels.multiply(links, (1,), ground, x, np.zeros_like(x), 1.0, out)
    assert out[2] == pytest.approx(1e-9, rel=1e-6)
    dense = oracle.matrix(links, [1], ground)
    assert out == pytest.approx(oracle.multiply(links, [1], ground, x, 0, 1.0), abs=1e-12)
    assert np.array_equal(dense, dense.T)


@pytest.mark.parametrize("n_rows", [1, 2])
@pytest.mark.parametrize("shape", [*SHAPES, (9, 70)])
def test_ground_seeds(rng, shape, n_rows, way):
    operator = operator_on(rng, shape)
    grid, steps = operator.grid, steps_of(operator)
    seeds = rng.integers(-2, 3, shape).astype(np.int32)
    seeds[..., 5:60] = -1
    seeds = grid.spread(seeds, -2)
    weights, ground = operator.links.copy(), np.empty(grid.size)
    right = np.zeros((n_rows, grid.size))
    # edges from invalid pixels have no weight in what the oracle sees
    masked = weights.copy()
    for row, step in zip(masked, steps, strict=True):
        row[: grid.size - step] *= (seeds[:-step] != -2) & (seeds[step:] != -2)
        row[grid.size - step :] = 0
    expected = oracle.ground_seeds(masked, steps, seeds, n_rows)
    kernels.ground_seeds(weights, steps, seeds, ground, right)
    for found, wanted in zip((weights, ground, right), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize("shape", [*SHAPES, (5, 50)])
def test_contrast_weights(rng, shape, way):
    grid = Grid(shape)
    colors = rng.uniform(0, 255, (3, grid.size)).astype(np.float32)
    steps = grid.distances(grid.axis_offsets())
    scales, out = np.linspace(1e-4, 1e-3, len(steps)), np.zeros((len(steps), grid.size))
    kernels.contrast_weights(colors, steps, scales, 1e-10, out)
    expected = oracle.contrast_weights(colors, steps, scales, 1e-10)
    margin = steps.max()  # what crosses the border means nothing
    inside = slice(None, grid.size - margin)
    assert out[:, inside] == pytest.approx(expected[:, inside], rel=1e-12)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "shape", [*(s for s in SHAPES if max(s) > 1), (3, 40), (4, 33), (2, 3, 37)]
)
def test_coarse_grid(rng, shape, full, way):
    """interpolation, coarse_links, restrict and prolong, all beside dense matrices."""
    operator = operator_on(rng, shape, full=full)
    grid = operator.grid
    inside = places_of(grid)
    links = np.stack([grid.gather(row)[0] for row in operator.links])
    p = oracle.interpolation(links, operator.offsets, grid.gather(operator.ground)[0])
    transfer, coarse = _coarsen(operator, operator.diagonal)
    places = places_of(coarse.grid)
    dense = oracle.matrix(operator.links, steps_of(operator), operator.ground)
    galerkin = p.T @ dense[np.ix_(inside, inside)] @ p

    x = rng.normal(0, 1, (2, coarse.grid.size))
    x[:, np.setdiff1d(np.arange(coarse.grid.size), places)] = 0
    wide = transfer.weights.astype(np.float64)
    how = (transfer.base, transfer.coarse, transfer.moves, wide)
    for row, fine in zip(x, vectors(rng, operator), strict=True):
        reached, below = np.zeros(grid.size), np.zeros(coarse.grid.size)
        multigrid.prolong(*how, row, reached)
        assert reached[inside] == pytest.approx(oracle.prolong(p, row[places]), abs=1e-6)
        multigrid.restrict(*how, fine, below)
        assert below[places] == pytest.approx(oracle.restrict(p, fine[inside]), abs=1e-5)

    found = oracle.matrix(coarse.links, steps_of(coarse), coarse.ground)
    found = found[np.ix_(places, places)]
    off = oracle.coarse_links(p, dense[np.ix_(inside, inside)])
    assert found - np.diag(np.diag(found)) == pytest.approx(-off, abs=1e-12)
    assert found == pytest.approx(galerkin, abs=1e-12)
    assert coarse.ground[places] == pytest.approx(galerkin.sum(axis=1), abs=1e-12)


def test_interpolation_weights(rng):
    """The mean of the pixels at both sides, by their links; nothing through an absent link."""
    grid = Grid((1, 3))
    links, ground = np.zeros((1, grid.size)), grid.spread(np.zeros((1, 3)), 1.0)
    links[0, 1:3] = [1.0, 3.0]
    transfer, _ = _coarsen(Operator(grid, grid.axis_offsets(), links, ground), ground + 1)
    assert transfer.weights[:, 1:3].T.tolist() == [[1, 0, 0.25], [1, 0.75, 0]]
    expected = oracle.interpolation(links[:, np.newaxis, 1:4], ((0, 1),), np.zeros((1, 3)))
    assert expected[1].tolist() == [0.25, 0.75]


@pytest.mark.parametrize("n", [1, 5, 16, 5170])
def test_what_an_iteration_changes(rng, n, way):
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
    wanted, expected = oracle.turn(part, values, found, 0.3, 0.7, oracle.matrix(*system), along)
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
    dense = oracle.matrix(operator.links, system[2], operator.ground)
    assert left == pytest.approx(oracle.take_pulls(dense, part, 0.3, found, sums), abs=1e-12)


def test_sums_of_long_parts(rng, way):
    part = np.repeat([2, -1, 0, 0, 1, 2], [40, 9, 3, 31, 1, 17]).astype(np.int32)
    x, sums = rng.normal(0, 1, len(part)), np.empty(3)
    deflated_cg.sum_parts(part, x, sums)
    assert sums == pytest.approx(oracle.sum_parts(part, x, 3))


CYCLES = [(33, 48), (97, 110), (9, 12, 11), (1, 900), (2, 700), (3, 3, 200), (5, 5, 600)]


@pytest.mark.parametrize("shape", CYCLES)
def test_the_cycle_is_symmetric_positive_and_contracts(rng, shape, way):
    operator = operator_on(rng, shape, weakest=-1)
    solver = Multigrid.build(operator)
    assert len(solver.keeps) > 0
    rooms = solver.rooms()

    def solve(right):
        rooms[0, : len(right)] = right
        return solver.apply(rooms).astype(float)

    x, y = vectors(rng, operator, 2, np.float32)
    mx, my = solve(x), solve(y)
    assert mx @ y == pytest.approx(x @ my, rel=1e-3, abs=1e-3)
    assert mx @ x > 0
    dense = oracle.matrix(operator.links, steps_of(operator), operator.ground)
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
    multigrid.invert(found)
    assert found == pytest.approx(oracle.invert(matrix), rel=1e-8, abs=1e-8)


def test_a_small_grid_is_solved_by_its_inverse(rng):
    operator = operator_on(rng, (4, 5), weakest=-1)
    solver = Multigrid.build(operator)
    assert len(solver.keeps) == 0
    rooms = solver.rooms()
    rooms[0] = vectors(rng, operator, 1, np.float32)[0]
    dense = oracle.matrix(operator.links, steps_of(operator), operator.ground)
    expected = oracle.cycle(dense, rooms[0].astype(float))
    assert solver.apply(rooms) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@on_x86
def test_products_are_packed(rng):
    operator = operator_on(rng, (20, 30))
    x, right, out = np.zeros((3, operator.grid.size))
    system = (operator.links, operator.strides, operator.ground)
    code = assembly_of(kernels._multiply, *system, x, right, 1.0, out, 40, 80, True)
    assert "fmadd" in code
    assert "pd" in code
