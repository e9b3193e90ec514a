"""Labels compete by their costs; the edge map is low where the image changes."""

import numpy as np
import pytest

from hybridseg.inference.contours.region_competition import (
    ChanVeseContour,
    MorphologicalContour,
    compete,
    edges_of,
)

SIDES = (1.0, 1.0)
CONTOURS = {
    "force": MorphologicalContour(10, 1, 0.0, 0.0),
    "smoothed": MorphologicalContour(10, 2, 1.0, 0.0),
    "length": ChanVeseContour(30, 0.0, 1.0),
}


def costs_of(rng, n_labels, shape=(24, 31), noise=1.0):
    truth = np.broadcast_to(np.arange(shape[-1]) * n_labels // shape[-1], shape)
    costs = 2.0 * (1 - np.eye(n_labels)[truth]) + noise * rng.gumbel(size=(*shape, n_labels))
    return costs.astype(np.float32), truth


@pytest.mark.parametrize("name", CONTOURS)
def test_one_label_is_everywhere(rng, name):
    found = compete(costs_of(rng, 1)[0], None, None, CONTOURS[name], SIDES)
    assert (found == 0).all()
    assert found.shape == (24, 31)


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize(
    "contour", [MorphologicalContour(0, 1, 0.0, 0.0), ChanVeseContour(0, 0.0, 2.0)]
)
def test_without_iterations_the_cheapest_label_stays(rng, n_labels, contour):
    costs, _ = costs_of(rng, n_labels)
    found = compete(costs, None, None, contour, SIDES)
    np.testing.assert_array_equal(found, costs.argmin(axis=-1))


@pytest.mark.parametrize("name", CONTOURS)
@pytest.mark.parametrize("n_labels", [2, 3])
def test_a_constant_on_all_labels_changes_nothing(rng, name, n_labels):
    costs, truth = costs_of(rng, n_labels)
    costs = np.round(costs * 8) / 8  # so that sums are exact
    found = compete(costs, None, None, CONTOURS[name], SIDES)
    assert (found == truth).mean() > (costs.argmin(axis=-1) == truth).mean()
    if name != "smoothed":
        np.testing.assert_array_equal(compete(costs + 4, None, None, CONTOURS[name], SIDES), found)


@pytest.mark.parametrize("name", CONTOURS)
@pytest.mark.parametrize("n_labels", [2, 3])
def test_seeds_are_held_and_the_costs_are_not_written_to(rng, name, n_labels):
    costs, truth = costs_of(rng, n_labels)
    before = costs.copy()
    seeds = np.where(rng.random(truth.shape) < 0.05, (truth + 1) % n_labels, -1)
    seeds[0, 0], seeds[-1, -1] = 1, 0
    found = compete(costs, None, seeds, CONTOURS[name], SIDES)
    np.testing.assert_array_equal(found[seeds >= 0], seeds[seeds >= 0])
    np.testing.assert_array_equal(costs, before)


def test_corners_of_the_image_keep_their_label():
    costs = np.zeros((12, 15, 2), np.float32)
    costs[..., 0] = 1
    for smoothing in (1, 2, 4):
        assert compete(costs, None, None, MorphologicalContour(9, smoothing, 0.0, 0.0), SIDES).all()


@pytest.mark.parametrize("factor", [0.5, 1.0, 40.0])
def test_edges_are_low_at_edges_whatever_the_contrast(factor):
    colors = np.zeros((20, 30, 2), np.float32)
    colors[:, 15:] = 3.0 * factor
    edges = edges_of(colors, 1.0, SIDES)
    assert edges.dtype == np.float32
    assert edges[:, 14:16].max() < 0.5 < edges[:, :8].min()
    np.testing.assert_allclose(edges, edges_of(colors / factor, 1.0, SIDES), rtol=1e-4)
    np.testing.assert_allclose(edges[:, ::-1], edges, atol=1e-5)
    assert (edges_of(np.full((5, 6, 1), 9, np.float32), 1.0, SIDES) == 1).all()
