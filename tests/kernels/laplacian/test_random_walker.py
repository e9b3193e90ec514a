"""The kernels of the random walker equal computations with matrices written out."""

import numpy as np
import pytest

from hybridseg.inference.random_walk.multigrid import Grid
from hybridseg.kernels.laplacian import random_walker as kernels
from tests.kernels.laplacian.problems import SHAPES, operator_on, steps_of, vectors
from tests.kernels.vectors.assembly import assembly_of, on_x86
from tests.oracles.laplacian import random_walker as oracle


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
    """Two pixels have one link of 1e-9 to the others, which alone determines their value."""
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
    # the oracle sees no edges from invalid pixels
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
    margin = steps.max()  # links across the border have no meaning
    inside = slice(None, grid.size - margin)
    assert out[:, inside] == pytest.approx(expected[:, inside], rel=1e-12)


@on_x86
def test_products_are_packed(rng):
    operator = operator_on(rng, (20, 30))
    x, right, out = np.zeros((3, operator.grid.size))
    system = (operator.links, operator.strides, operator.ground)
    code = assembly_of(kernels._multiply, *system, x, right, 1.0, out, 40, 80, True)
    assert "fmadd" in code
    assert "pd" in code
