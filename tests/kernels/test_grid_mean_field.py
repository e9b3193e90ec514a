"""The sweeps over grids and graphs beside their slow twins."""

import numpy as np
import pytest

from hybridseg.kernels import _simd as simd
from hybridseg.kernels import grid_mean_field as kernels
from hybridseg.kernels.grid_mean_field import color_graph, sweep_graph
from tests.kernels.assembly import assembly_of, on_x86
from tests.oracles import grid_mean_field as oracle
from tests.oracles.mean_field import softmax

#: Without and, unless they are switched off, with explicit vectors.
WAYS = sorted({False, simd.ENABLED})
POTTS = np.zeros((0, 0), np.float32)


@pytest.fixture(params=WAYS, ids=lambda way: "vectors" if way else "numbers")
def way(request, monkeypatch):
    monkeypatch.setattr(simd, "ENABLED", request.param)


def sweep_grid(unary, *arguments):
    """With costs and marginals as (n, L)."""
    *arguments, marginals = arguments
    planes = np.ascontiguousarray(marginals.T)
    change = kernels.sweep_grid(np.ascontiguousarray(unary.T), *arguments, planes)
    marginals[:] = planes.T
    return change


def adjacency(n, edges):
    """The arrays of a graph whose ``edges`` are (i, j, w)."""
    lists = [[] for _ in range(n)]
    for i, j, w in edges:
        lists[i].append((j, w))
        lists[j].append((i, w))
    first = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    flat = [pair for one in lists for pair in one]
    neighbours = np.array([j for j, _ in flat], np.int32)
    return first, neighbours, np.array([w for _, w in flat], np.float32)


def problem(rng, n, n_labels, scale=2.0):
    unary = rng.normal(0, scale, (n, n_labels)).astype(np.float32)
    return unary, softmax(rng.normal(0, 1, (n, n_labels))).astype(np.float32)


def matrices(rng, n_labels):
    matrix = rng.normal(0, 1, (n_labels, n_labels)).astype(np.float32)
    return {"potts": POTTS, "matrix": np.ascontiguousarray(matrix + matrix.T)}


@pytest.mark.parametrize("pairs", ["potts", "matrix"])
@pytest.mark.parametrize("n_labels", [1, 2, 5, 21])
@pytest.mark.parametrize("width", [1, 2, 7, 41, 300])
def test_sweep_grid(rng, width, n_labels, pairs, way):
    height = 3
    unary, marginals = problem(rng, height * width, n_labels)
    links = rng.uniform(-1, 2, (2, height, width)).astype(np.float32)
    links[0, -1] = 0
    links[1, :, -1] = 0
    links, steps = links.reshape(2, -1), np.array([width, 1])
    starts, ends = np.array([0, width + 1, 2 * width]), width * np.array([1, 2, 3])
    runs = np.stack([starts, (ends - starts + 1) // 2, ends], axis=1)
    matrix = matrices(rng, n_labels)[pairs]
    args = (unary, links, steps, runs, matrix, np.float32(0.25))
    expected, largest = oracle.sweep_grid(*args, marginals)
    change = sweep_grid(*args, marginals)
    assert np.abs(marginals - expected).max() < 1e-5
    assert change == pytest.approx(largest, abs=1e-5)


@pytest.mark.parametrize("size", [1e-30, 50.0, 1e4, 1e15])
def test_sweep_grid_of_any_size_of_costs(rng, size, way):
    unary, marginals = problem(rng, 12, 3, size)
    args = (unary, np.zeros((1, 12), np.float32), np.array([1]), np.array([[0, 6, 12], [1, 6, 12]]))
    expected, _ = oracle.sweep_grid(*args, POTTS, 0.0, marginals)
    sweep_grid(*args, POTTS, np.float32(0), marginals)
    assert np.abs(marginals - expected).max() < 1e-5


def test_sweep_grid_of_no_pixels(rng):
    unary, marginals = problem(rng, 1, 3)
    before = marginals.copy()
    args = (unary, np.zeros((1, 1), np.float32), np.array([1]), np.zeros((0, 2), np.int64))
    assert sweep_grid(*args, POTTS, np.float32(0), marginals) == 0
    assert np.array_equal(marginals, before)
    assert oracle.sweep_grid(*args, POTTS, 0.0, marginals)[1] == 0


@pytest.mark.parametrize("pairs", ["potts", "matrix"])
@pytest.mark.parametrize("n_labels", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 400])
def test_sweep_graph(rng, n, n_labels, pairs):
    ends = rng.integers(0, n, (2 * n, 2))
    edges = [(i, j, rng.uniform(-1, 2)) for i, j in ends.tolist() if i != j]
    first, neighbours, weights = adjacency(n, edges)
    colors = color_graph(first, neighbours)
    unary, marginals = problem(rng, n, n_labels)
    matrix = matrices(rng, n_labels)[pairs]
    for color in range(colors.max() + 1):
        nodes = np.flatnonzero(colors == color).astype(np.int32)
        args = (unary, first, neighbours, weights, nodes, matrix, np.float32(0.1))
        expected, largest = oracle.sweep_graph(*args, marginals)
        change = sweep_graph(*args, marginals)
        assert np.abs(marginals - expected).max() < 1e-5
        assert change == pytest.approx(largest, abs=1e-5)


def test_color_graph(rng):
    graphs = [
        (1, []),
        (5, []),
        (2, [(0, 1, 1.0)]),
        (4, [(i, j, 1.0) for i in range(4) for j in range(i)]),
        (60, [(i, j, 1.0) for i, j in rng.integers(0, 60, (150, 2)).tolist() if i != j]),
    ]
    for n, edges in graphs:
        first, neighbours, _ = adjacency(n, edges)
        colors = color_graph(first, neighbours)
        assert np.array_equal(colors, oracle.color_graph(first, neighbours))
        assert all(colors[i] != colors[j] for i, j, _ in edges)


@on_x86
@pytest.mark.parametrize("pairs", ["potts", "matrix"])
def test_the_sweep_is_packed(rng, pairs):
    unary, marginals = problem(rng, 2, 99)
    links, room = np.zeros((1, 99), np.float32), np.zeros((2, 16), np.float32)
    args = (unary, links, np.array([30]), matrices(rng, 2)[pairs], np.float32(0), marginals)
    code = assembly_of(kernels._update_pixels, *args, room, 40)
    assert "divps" in code
    assert "fmadd" in code
