"""Mean field on grids and graphs: its laws, its special cases, and its effect on scores."""

from itertools import pairwise

import numpy as np
import pytest

from hybridseg import GridCRF, Scene
from hybridseg.features import region_graph, region_means, region_sums
from hybridseg.inference import MeanFieldResult, graph_cut, grid_mean_field
from hybridseg.pairwise import (
    BilateralKernel,
    dense_region_weights,
    energy,
    grid_weights,
    region_weights,
)
from hybridseg.pairwise.edges import edge_groups, edge_list
from hybridseg.scene.costs import RegionCosts
from tests.inference.mean_field.problems import random_weights
from tests.oracles.dense.mean_field import softmax
from tests.oracles.sparse.graph_mean_field import free_energy
from tests.subjects import halves, pixels, superpixels

FULL = {2: (0, 1), 3: (0, 0, 1)}


def edges_of(weights, shape):
    return list(zip(*edge_list(edge_groups(weights, shape), shape), strict=True))


SHAPES = [((1, 1), 1), ((1, 6), 1), ((5, 1), 2), ((5, 6), 1), ((5, 7), 2), ((3, 4, 5), 1)]
SHAPES += [((2, 3, 4), 2), ((3, 3, 4), 3), ((1, 4, 3), 3)]


@pytest.mark.parametrize("pairs", ["potts", "matrix"])
@pytest.mark.parametrize(("shape", "connectivity"), SHAPES)
def test_free_energy_never_rises(rng, shape, connectivity, pairs):
    """The bound holds for any weights, also negative ones, and any symmetric compatibility."""
    n_labels = 3
    weights = random_weights(rng, shape, connectivity, least=-2.0)
    unary = rng.normal(0, 1, (*shape, n_labels))
    matrix = rng.normal(0, 1, (n_labels, n_labels))
    matrix = 1 - np.eye(n_labels) if pairs == "potts" else matrix + matrix.T
    edges = edges_of(weights, shape)
    energies = [
        free_energy(
            grid_mean_field(unary, weights, compatibility=matrix, n_iter=n).marginals.reshape(
                -1, 3
            ),
            unary.reshape(-1, 3),
            edges,
            matrix,
        )
        for n in range(8)
    ]
    assert all(b <= a + 1e-4 for a, b in pairwise(energies))
    if len(edges):
        assert energies[-1] < energies[0]


def test_free_energy_never_rises_on_graphs_and_under_damping(rng):
    n = 40
    i, j = rng.integers(0, n, (2, 120))
    keep = i != j
    weights = (i[keep], j[keep], rng.uniform(-2, 2, keep.sum()))
    unary = rng.normal(0, 1, (n, 4))
    for damping in (0.0, 0.5, 0.9):
        energies = [
            free_energy(
                grid_mean_field(unary, weights, n_iter=k, damping=damping).marginals,
                unary,
                list(zip(*weights, strict=True)),
                (),
            )
            for k in range(8)
        ]
        assert all(b <= a + 1e-4 for a, b in pairwise(energies))


@pytest.mark.parametrize(("shape", "connectivity"), SHAPES)
def test_fixed_point_obeys_the_equation(rng, shape, connectivity):
    weights = random_weights(rng, shape, connectivity)
    unary = rng.normal(0, 1, (*shape, 3))
    found = grid_mean_field(unary, weights, n_iter=500, tol=1e-6)
    assert found.converged
    assert isinstance(found, MeanFieldResult)
    assert found.n_iter == len(found.changes) < 500
    q = found.marginals.reshape(-1, 3).astype(float)
    messages = np.zeros_like(q)
    for i, j, w in edges_of(weights, shape):
        messages[i] += w * (1 - q[j])
        messages[j] += w * (1 - q[i])
    assert np.abs(q - softmax(-unary.reshape(-1, 3) - messages)).max() < 1e-4


def test_forms_of_weights_agree(rng):
    """A list per axis, offsets of either sign, and an edge list describe the same edges."""
    unary = rng.normal(0, 1, (4, 6, 3))
    down, right = rng.uniform(0, 2, (3, 6)), rng.uniform(0, 2, (4, 5))
    first = grid_mean_field(unary, [down, right]).marginals
    assert first == pytest.approx(grid_mean_field(unary, {(-1, 0): down, (0, -1): right}).marginals)
    long = {"tol": 1e-7, "n_iter": 1000}
    edges = edge_list(edge_groups([down, right], (4, 6)), (4, 6))
    settled = grid_mean_field(unary * 3, [down / 4, right / 4], **long).marginals
    edges = (edges[0], edges[1], edges[2] / 4)
    listed = grid_mean_field(unary.reshape(-1, 3) * 3, edges, **long).marginals
    assert settled.reshape(-1, 3) == pytest.approx(listed, abs=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_commute_at_the_fixed_point(rng, axis):
    image = rng.integers(0, 256, (7, 9, 3)).astype(np.uint8)
    unary = rng.normal(0, 2, (7, 9, 3))

    def solve(image, unary):
        return grid_mean_field(unary, grid_weights(image), n_iter=500, tol=1e-7).marginals

    flipped = solve(np.flip(image, axis), np.flip(unary, axis))
    assert np.flip(flipped, axis) == pytest.approx(solve(image, unary), abs=1e-4)


def test_stated_checkerboard_does_not_oscillate():
    """Parallel updates of repelling neighbors swap labels forever; these updates converge."""
    unary = np.zeros((4, 4, 2))
    unary[0, 0, 0] = -0.1
    weights = [np.full((3, 4), -5.0), np.full((4, 3), -5.0)]
    found = grid_mean_field(unary, weights, n_iter=50, tol=1e-6)
    assert found.converged
    labels = found.marginals.argmax(axis=-1)
    assert np.array_equal(labels, np.indices((4, 4)).sum(axis=0) % 2)


def test_labels_nearly_as_good_as_the_cut():
    images, truth = halves()
    rng = np.random.default_rng(0)
    for image, labels in zip(images, truth, strict=True):
        unary = 2.0 * (np.arange(3) != labels[..., np.newaxis]) + rng.gumbel(
            0, 1, (*labels.shape, 3)
        )
        weights = grid_weights(image, weight=2.0)
        soft = grid_mean_field(unary, weights).marginals.argmax(axis=-1)
        best = graph_cut(unary, weights)
        start = energy(unary.argmin(axis=-1), unary, weights)
        gained = start - energy(soft, unary, weights)
        assert gained > 0.97 * (start - best.lower_bound)


def test_input_is_left_alone_and_any_layout_serves(rng):
    unary = np.asfortranarray(rng.normal(0, 1, (4, 5, 3)).astype(np.float16))
    unary.setflags(write=False)
    weights = [np.ones((3, 5), bool), np.ones((4, 4), np.uint8)]
    found = grid_mean_field(unary, weights).marginals
    again = grid_mean_field(np.array(unary, order="C"), weights).marginals
    assert found.dtype == np.float32
    assert np.array_equal(found, again)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_iter": -1}, "n_iter=-1"),
        ({"n_iter": 1.5}, "n_iter"),
        ({"tol": -0.1}, "tol"),
        ({"damping": 1.0}, "damping"),
        ({"damping": -0.1}, "damping"),
        ({"compatibility": "max"}, "compatibility"),
        ({"compatibility": [[0, 1], [2, 0]]}, "compatibility"),
        ({"unary": np.full((2, 3, 2), np.nan)}, "unary"),
        ({"weights": [np.ones((1, 3))]}, "weights"),
        ({"weights": [np.ones((1, 3)), np.ones((2, 3))]}, "weights"),
        ({"weights": [np.full((1, 3), np.inf), np.ones((2, 2))]}, "weights"),
        ({"weights": [np.full((1, 3), 1e38), np.ones((2, 2))]}, "weights holds 1e.38; .*float32"),
    ],
)
def test_bad_input(changes, message):
    given = {"unary": np.zeros((2, 3, 2)), "weights": [np.ones((1, 3)), np.ones((2, 2))]}
    given |= changes
    with pytest.raises((TypeError, ValueError), match=message):
        grid_mean_field(given.pop("unary"), given.pop("weights"), **given)


def test_crf_is_the_function(rng):
    image = rng.integers(0, 256, (9, 11, 3)).astype(np.uint8)
    scene = Scene.from_logits(image, rng.normal(0, 1, (9, 11, 3)), spacing=(1.0, 2.0))
    crf = GridCRF(weight=2.0, connectivity=2, contrast=30.0, damping=0.1, n_iter=4)
    weights = grid_weights(image, weight=2.0, connectivity=2, contrast=30.0, spacing=(1.0, 2.0))
    expected = grid_mean_field(scene.unary, weights, damping=0.1, n_iter=4).marginals
    assert crf.predict_proba([scene])[0] == pytest.approx(expected, abs=1e-6)


def test_volumes(rng):
    volume = np.zeros((4, 8, 9), np.uint8)
    volume[..., 4:] = 180
    logits = np.where(volume[..., np.newaxis] > 0, [0.0, 1.0], [1.0, 0.0])
    logits = logits + rng.normal(0, 0.7, logits.shape)
    scene = Scene.from_logits(volume, logits, spacing=(3.0, 1.0, 1.0))
    for connectivity in (1, 3):
        found = GridCRF(connectivity=connectivity).predict([scene])[0]
        assert np.array_equal(found, volume > 0)


def test_invalid_pixels_influence_no_others(rng):
    image = rng.integers(0, 256, (8, 9, 3)).astype(float) / 255
    logits = rng.normal(0, 1, (8, 9, 3))
    valid = np.ones((8, 9), bool)
    valid[3:5, 2:6] = False
    found = []
    for junk in (np.nan, 0.5):
        image[~valid], logits[~valid] = junk, junk
        found.append(GridCRF().predict_proba([Scene.from_logits(image, logits, valid=valid)])[0])
    assert np.array_equal(*found)
    assert found[0][~valid] == pytest.approx(1 / 3)


def test_regions_keep_costs_by_region():
    images, labels = halves()
    unary = superpixels().fit(images, labels)
    scenes = unary.transform(images)
    crf = GridCRF(on="regions", weight=0.5)
    for scene, refined, proba in zip(
        scenes, crf.transform(scenes), crf.predict_proba(scenes), strict=True
    ):
        assert isinstance(refined.region_costs, RegionCosts)
        regions = scene.region_costs.regions
        assert np.array_equal(refined.region_costs.regions, regions)
        for region in np.unique(regions):
            inside = proba[regions == region]
            assert np.array_equal(inside, np.broadcast_to(inside[:1], inside.shape))
    assert crf.score(scenes, labels) > 0.8


def test_kernels_join_regions_that_are_far_apart():
    images, labels = halves()
    scenes = superpixels().fit(images, labels).transform(images)
    kernels = (BilateralKernel(3.0, 60.0, 20.0),)
    joined = GridCRF(on="regions", weight=0.5, kernels=kernels)
    for scene, found in zip(scenes, joined.transform(scenes), strict=True):
        regions = np.asarray(scene.regions)
        near = region_weights(
            region_graph(regions), region_means(scene.colors, regions), weight=0.5
        )
        far = dense_region_weights(
            *(regions, scene.image),
            bilateral_weight=3.0,
            bilateral_width=60.0,
            bilateral_color=20.0,
        )
        both = [np.concatenate(ends) for ends in zip(near, far, strict=True)]
        expected = grid_mean_field(region_sums(scene.unary, regions), both).marginals
        assert found.proba == pytest.approx(expected[regions], abs=1e-4)
    with pytest.raises(ValueError, match="on='pixels'"):
        _ = GridCRF(kernels=kernels).transform(scenes)[0].unary


def test_regions_with_holes(rng):
    """Pixels outside of all regions keep their own costs, and invalid ones are labeled -1."""
    images, labels = halves()
    scene = superpixels().fit(images, labels).transform(images[:1])[0]
    regions = np.asarray(scene.regions).copy()
    regions[:4, :5] = -1
    valid = np.ones(regions.shape, bool)
    valid[10:, 20:25] = False
    holed = scene.replace(regions=regions, unary=scene.unary, valid=valid)
    found = GridCRF(on="regions").transform([holed])[0]
    assert found.proba[:4, :5] == pytest.approx(scene.proba[:4, :5], abs=1e-5)
    assert np.array_equal(found.prediction == -1, ~valid)
    nothing = scene.replace(regions=np.full_like(regions, -1), unary=scene.unary)
    again = GridCRF(on="regions").transform([nothing])[0]
    assert again.proba == pytest.approx(scene.proba, abs=1e-5)
    with pytest.raises(ValueError, match="needs superpixels"):
        _ = (
            GridCRF(on="regions")
            .transform([scene.replace(regions=None, unary=scene.unary)])[0]
            .unary
        )


def test_improves_a_pixel_classifier(rng):
    """On noisy images the classifier's specks vanish, and its score rises."""
    images, labels = halves()
    noisy = [np.clip(i + rng.normal(0, 35, i.shape), 0, 255).astype(np.uint8) for i in images]
    plain = pixels().fit(images, labels)
    crf = GridCRF(plain).fit(images, labels)
    assert crf.score(noisy, labels) > plain.score(noisy, labels) + 0.02
