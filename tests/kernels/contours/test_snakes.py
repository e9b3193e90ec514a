"""The snakes on packed bits equal their twins on whole arrays, label by label."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.contours import snakes as kernels
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.contours.blobs import SHAPES, blobs
from tests.oracles.contours import snakes as oracles

#: Without explicit vectors and, unless they are switched off, with them.
WAYS = sorted({False, simd.ENABLED})


def images(shape, rng, dtype):
    yield rng.normal(0, 1, shape).astype(dtype)
    yield rng.integers(0, 3, shape).astype(dtype)  # many ties
    yield np.full(shape, 0.1, dtype)


@pytest.mark.parametrize("smoothing", [0, 1, 2, 3])
@pytest.mark.parametrize(("shape", "flat"), SHAPES)
def test_regions_equal_twin_after_every_iteration(shape, flat, smoothing, monkeypatch):
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        weights = np.array([0.9, 1.2], dtype)
        for image in images(shape, rng, dtype):
            start = blobs(shape, rng)
            for n_iter in (0, 1, 2, 3, 7, 8):
                expected = start.copy()
                true = oracles.evolve_regions(image, expected, flat, n_iter, smoothing, weights)
                for enabled in WAYS:
                    monkeypatch.setattr(simd, "ENABLED", enabled)
                    found = start.copy()
                    said = kernels.evolve_regions(image, found, flat, n_iter, smoothing, weights)
                    np.testing.assert_array_equal(found, expected)
                    assert said == true


@pytest.mark.parametrize("balloon", [-1, 0, 1])
@pytest.mark.parametrize(("shape", "flat"), SHAPES)
def test_contour_equals_twin_after_every_iteration(shape, flat, balloon):
    rng = np.random.default_rng(1)
    nothing = np.zeros((2, 1, 1, 1), np.uint8)
    for dtype in (np.float32, np.float64):
        for edges in images(shape, rng, dtype):
            start, grows = blobs(shape, rng), blobs(shape, rng)
            for n_iter, smoothing in ((0, 1), (1, 0), (2, 1), (5, 2), (6, 1), (7, 1)):
                found, expected = start.copy(), start.copy()
                options = (np.empty(0, dtype), dtype(1), grows, balloon, nothing)
                said = kernels.evolve_contour(edges, *options, found, flat, n_iter, smoothing)
                true = oracles.evolve_contour(edges, *options, expected, flat, n_iter, smoothing)
                np.testing.assert_array_equal(found, expected)
                assert said == true


@pytest.mark.parametrize("weight", [0.0, 2.0])
@pytest.mark.parametrize(("shape", "flat"), SHAPES)
def test_forces_and_held_labels_equal_twin(shape, flat, weight):
    rng = np.random.default_rng(2)
    grows = np.zeros((1, 1, 1), np.uint8)
    for edges in images(shape, rng, np.float32):
        force = rng.integers(-2, 3, edges.size).astype(np.float32)
        start, seeds = blobs(shape, rng), rng.integers(0, 8, shape)
        held = np.stack([seeds == 1, seeds == 2]).astype(np.uint8)
        for n_iter, smoothing in ((1, 0), (2, 1), (6, 2), (9, 1)):
            found, expected = start.copy(), start.copy()
            options = (force, np.float32(weight), grows, 0, held)
            said = kernels.evolve_contour(edges, *options, found, flat, n_iter, smoothing)
            true = oracles.evolve_contour(edges, *options, expected, flat, n_iter, smoothing)
            np.testing.assert_array_equal(found, expected)
            assert said == true
            assert (found[seeds == 1] == 0).all()
            assert (found[seeds == 2] == 1).all()
