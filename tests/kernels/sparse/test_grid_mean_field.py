"""The sweeps over grids equal their slow twin."""

import numpy as np
import pytest

from hybridseg.kernels.sparse import grid_mean_field as kernels
from hybridseg.kernels.sparse.grid_mean_field import (
    LANES,
    Terms,
    empty_tiles,
    grid_of,
    lay_out_links,
)
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.vectors.assembly import assembly_of, on_x86
from tests.oracles.dense.mean_field import softmax
from tests.oracles.sparse import grid_mean_field as oracle

#: Without explicit vectors and, unless they are switched off, with them.
WAYS = sorted({False, simd.ENABLED})
POTTS = np.zeros((0, 0), np.float32)
FEW = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
MANY = [*FEW, (1, 0, 1), (-1, 0, 1), (1, 1, 0), (0, 1, -1), (1, -1, 1), (1, 1, 1)]


@pytest.fixture(params=WAYS, ids=lambda way: "vectors" if way else "numbers")
def way(request, monkeypatch):
    monkeypatch.setattr(simd, "ENABLED", request.param)


def problem(rng, n, n_labels, scale=2.0):
    unary = rng.normal(0, scale, (n, n_labels)).astype(np.float32)
    return unary, softmax(rng.normal(0, 1, (n, n_labels))).astype(np.float32)


def matrices(rng, n_labels):
    matrix = rng.normal(0, 1, (n_labels, n_labels)).astype(np.float32)
    return {"potts": POTTS, "matrix": np.ascontiguousarray(matrix + matrix.T)}


def random_weights(rng, shape, offsets):
    """Weights (m, *shape): each edge has one, at the pixel where its offset starts."""
    weights = np.zeros((len(offsets), *shape), np.float32)
    for row, offset in zip(weights, offsets, strict=True):
        ends = zip(shape, offset, strict=True)
        inside = tuple(slice(max(0, -step), max(0, n - max(0, step))) for n, step in ends)
        row[inside] = rng.uniform(-1, 2, row[inside].shape)
    return weights


def sweeps(unary, shape, offsets, weights, pairs, damping, n_sweeps, borders=None, passes=1):
    """The kernel's marginals (n, L) from costs (n, L), and the largest change of every sweep."""
    steps = np.array(offsets, np.int64).reshape(-1, 3)
    grid = grid_of(shape, unary.shape[1], steps)
    terms = Terms(
        empty_tiles(grid), lay_out_links(weights, grid), steps, pairs, np.float32(damping)
    )
    kernels.write_tiles(unary.reshape(-1), grid, terms.costs)
    tiles = empty_tiles(grid)
    borders = np.array([0, shape[0]] if borders is None else borders)
    start = terms._replace(offsets=steps[:0], damping=np.float32(0))
    kernels.sweep_grid(start, grid, borders, 1, tiles)
    changes = [kernels.sweep_grid(terms, grid, borders, n_sweeps, tiles) for _ in range(passes)]
    marginals = np.empty(unary.shape, np.float32)
    kernels.read_tiles(tiles, grid, marginals.reshape(-1))
    return marginals, np.concatenate(changes)


@pytest.mark.parametrize("pairs", ["potts", "matrix"])
@pytest.mark.parametrize("n_labels", [1, 2, 5, 21])
@pytest.mark.parametrize("offsets", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 6), (3, 1, 1), (4, 1, 2 * LANES), (3, 1, 71), (3, 4, 5), (2, 3, 38)]
)
def test_sweep_grid(rng, shape, offsets, n_labels, pairs, way):
    unary, _ = problem(rng, int(np.prod(shape)), n_labels)
    weights, matrix = random_weights(rng, shape, offsets), matrices(rng, n_labels)[pairs]
    found, changes = sweeps(unary, shape, offsets, weights, matrix, 0.25, 2)
    expected, largest = oracle.sweep_grid(unary, shape, offsets, weights, matrix, 0.25, 2)
    assert np.abs(found - expected).max() < 2e-5
    assert changes == pytest.approx(largest, abs=2e-5)


@pytest.mark.parametrize("n_labels", [3, 4])
@pytest.mark.parametrize("offsets", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("shape", [(27, 1, 40), (24, 3, 5)])
def test_parts_and_sweeps_together_do_not_matter(rng, shape, offsets, n_labels, way):
    """Parts, and several sweeps in one pass, give the same bits as the whole and single sweeps."""
    unary, _ = problem(rng, int(np.prod(shape)), n_labels)
    weights = random_weights(rng, shape, offsets)
    args = (unary, shape, offsets, weights, POTTS, 0.0)
    found, changes = sweeps(*args, 3)
    for borders in ([0, 12, shape[0]], [0, 12, 24] if shape[0] == 24 else [0, 13, 27]):
        again, changes_again = sweeps(*args, 3, borders)
        assert np.array_equal(found, again)
        assert np.array_equal(changes, changes_again)
    again, changes_again = sweeps(*args, 1, passes=3)
    assert np.array_equal(found, again)
    assert np.array_equal(changes, changes_again)


@pytest.mark.parametrize("size", [1e-30, 50.0, 1e4, 1e15])
def test_sweep_grid_of_any_size_of_costs(rng, size, way):
    shape = (3, 1, 40)
    unary, _ = problem(rng, 120, 3, size)
    args = (unary, shape, FEW, np.zeros((3, *shape), np.float32), POTTS, 0.0, 1)
    assert np.abs(sweeps(*args)[0] - oracle.sweep_grid(*args)[0]).max() < 1e-5


@pytest.mark.parametrize("width", [1, 2, 31, 32, 33, 70])
@pytest.mark.parametrize("n_labels", [1, 2, 9])
def test_tiles_hold_every_pixel(rng, width, n_labels):
    shape = (3, 2, width)
    unary, _ = problem(rng, 6 * width, n_labels)
    grid = grid_of(shape, n_labels, np.array(FEW))
    assert grid == oracle.grid_of(shape, n_labels, np.array(FEW))
    assert np.array_equal(empty_tiles(grid), oracle.empty_tiles(grid))
    weights = random_weights(rng, shape, FEW)
    links = lay_out_links(weights, grid)
    assert np.array_equal(links, oracle.lay_out_links(weights, grid))
    tiles, slow = empty_tiles(grid), empty_tiles(grid)
    kernels.write_tiles(unary.reshape(-1), grid, tiles)
    oracle.write_tiles(unary.reshape(-1), grid, slow)
    assert np.array_equal(tiles, slow)
    rows, again = np.empty(unary.size, np.float32), np.empty(unary.size, np.float32)
    kernels.read_tiles(tiles, grid, rows)
    oracle.read_tiles(tiles, grid, again)
    assert np.array_equal(rows, again)
    assert np.array_equal(rows.reshape(unary.shape), unary)


@on_x86
def test_the_sweep_is_packed(rng):
    shape = (1, 1, 99)
    grid = grid_of(shape, 2, np.array(FEW))
    links = lay_out_links(random_weights(rng, shape, FEW), grid)
    terms = Terms(empty_tiles(grid), links, np.array(FEW), POTTS, np.float32(0))
    tiles, room = empty_tiles(grid), np.zeros(4096, np.float32)
    code = assembly_of(kernels._settle, grid, np.float32(0), 1, 1, room, tiles)
    assert "divps" in code
    near = np.array([[1, 0, 16], [1, 1, 16]])
    code = assembly_of(kernels._add_messages, terms, grid, tiles, near, 1, 0, 1, room)
    assert "fmadd" in code
