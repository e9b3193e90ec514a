"""The band around boundaries, against loops over all pairs of pixels."""

import itertools

import numpy as np
import pytest

from hybridseg import Scene
from hybridseg.deep.boundary.band import Surroundings, windows


def scene_of(labels, *, n_labels=3, **fields):
    logits = 5.0 * np.eye(n_labels)[labels]
    return Scene.from_logits(np.zeros((*labels.shape, 3), np.uint8), logits, **fields)


def distances(labels, valid, sides):
    """The distance of each pixel to the nearest pixel beside a boundary, and half a pixel."""
    pixels = list(itertools.product(*map(range, labels.shape)))
    beside = []
    for pixel in pixels:
        for axis, step in itertools.product(range(labels.ndim), (-1, 1)):
            other = tuple(p + step * (a == axis) for a, p in enumerate(pixel))
            inside = all(0 <= p < n for p, n in zip(other, labels.shape, strict=True))
            if inside and valid[pixel] and valid[other] and labels[pixel] != labels[other]:
                beside.append(pixel)
    found = np.full(labels.shape, np.inf)
    for pixel, other in itertools.product(pixels, beside):
        gap = np.linalg.norm((np.array(pixel) - other) * sides)
        found[pixel] = min(found[pixel], gap + 0.5)
    return found


CASES = {
    "image": ((9, 11), None, (1.0, 1.0), 3.0),
    "pixels with sides": ((9, 11), (4.0, 2.0), (2.0, 1.0), 6.0),
    "volume": ((4, 5, 6), (3.0, 1.0, 1.0), (3.0, 1.0, 1.0), 2.0),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_band_equals_loops(rng, name, masked):
    shape, spacing, sides, band = CASES[name]
    labels = (np.indices(shape).sum(axis=0) > 6).astype(int)
    labels[(0,) * len(shape)] = 2
    valid = rng.random(shape) > 0.3 if masked else np.ones(shape, bool)
    found = Surroundings.of(scene_of(labels, spacing=spacing, valid=valid), band)
    width = band / min(spacing or (1.0,))
    expected = distances(labels, valid, np.array(sides))
    np.testing.assert_array_equal(found.band, valid & (expected <= width))
    nearness = np.maximum(1 - expected / width, 0)
    np.testing.assert_allclose(found.nearness, nearness, atol=1e-6)


def test_the_unit_of_spacing_has_no_effect():
    labels = (np.indices((9, 11)).sum(axis=0) > 8).astype(int)
    one = Surroundings.of(scene_of(labels, spacing=(1.0, 0.5)), 2.0)
    other = Surroundings.of(scene_of(labels, spacing=(1000.0, 500.0)), 2000.0)
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name))


def test_candidates_are_probable_nearby():
    labels = np.zeros((9, 30), int)
    labels[:, 15:] = 1
    found = Surroundings.of(scene_of(labels), 4.0)
    columns = np.arange(30)
    np.testing.assert_array_equal(found.candidates[4, :, 0], columns < 15 + 4)
    np.testing.assert_array_equal(found.candidates[4, :, 1], columns >= 15 - 4)
    assert not found.candidates[..., 2].any()


def test_without_a_boundary_there_is_no_band():
    found = Surroundings.of(scene_of(np.zeros((1, 1), int)), "auto")
    assert not found.band.any()
    assert not found.nearness.any()


def test_invalid_pixels_have_no_influence(rng):
    labels = (np.indices((9, 11)).sum(axis=0) > 8).astype(int)
    valid = rng.random(labels.shape) > 0.3
    scene = scene_of(labels, valid=valid)
    image = np.where(valid[..., None], scene.image, np.nan).astype(np.float32)
    costs = np.where(valid[..., None], scene.unary, np.nan)
    hidden = scene.replace(image=image, unary=costs, intensity_range=(0, 255))
    one = Surroundings.of(scene, 3.0)
    other = Surroundings.of(hidden, 3.0)
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name))


def test_windows_continue_with_the_last_pixels(rng):
    labels = rng.integers(0, 3, (5, 6))
    around = Surroundings.of(scene_of(labels), 2.0)
    log_proba, nearness, colors = around.seen((0, 4), (5, 2), 3)
    padded = np.pad(around.nearness, 3, mode="edge")
    np.testing.assert_array_equal(nearness, padded[:, 4:])
    padded = np.pad(around.proba, [(3, 3), (3, 3), (0, 0)], mode="edge")[:, 4:]
    np.testing.assert_allclose(np.exp(log_proba), np.moveaxis(padded, -1, 0), rtol=1e-5)
    assert colors.shape == (3, 11, 8)


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (8, 4), (5, 6, 7)])
def test_windows_divide_the_image(shape):
    times = np.zeros(shape, int)
    for box in windows(shape, 4):
        assert all(0 < part.stop - part.start <= 4 for part in box)
        times[box] += 1
    assert (times == 1).all()
