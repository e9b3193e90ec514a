"""The dense CRF between regions: what it equals, and what it refuses."""

import numpy as np
import pytest

from hybridseg.features import region_graph, region_means, slic
from hybridseg.inference import graph_cut, grid_mean_field, mean_field
from hybridseg.pairwise import (
    Energy,
    FeatureKernel,
    GaussianKernel,
    RegionTerm,
    dense_energy,
    dense_region_weights,
    energy,
    region_weights,
)
from tests.subjects import halves


def written_out(features, sizes, weight):
    """The formula, pair by pair."""

    def likeness(r, s):
        return np.exp(-0.5 * ((features[r] - features[s]) ** 2).sum())

    every = range(len(sizes))
    sums = [sum(sizes[s] * likeness(r, s) for s in every) for r in every]
    return {
        (r, s): weight * sizes[r] * sizes[s] * likeness(r, s) / np.sqrt(sums[r] * sums[s])
        for r in every
        for s in every
        if r < s
    }


def random_regions(rng, shape, n_regions):
    regions = rng.integers(0, n_regions, shape)
    regions.flat[:n_regions] = np.arange(n_regions)
    return regions


@pytest.mark.parametrize(("shape", "spacing"), [((5, 7), (1.0, 2.0)), ((2, 4, 5), (3.0, 1.0, 1.0))])
def test_equals_the_formula(rng, shape, spacing):
    regions = random_regions(rng, shape, 6)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    found = dense_region_weights(
        regions,
        image,
        bilateral_weight=4.0,
        bilateral_width=5.0,
        bilateral_color=60.0,
        kernels=[GaussianKernel(2.0, 3.0)],
        spacing=spacing,
    )
    places = np.stack(np.indices(shape), axis=-1) * spacing
    centroids, colors = region_means(places, regions), region_means(image, regions)
    sizes = np.bincount(regions.ravel())
    far = written_out(np.concatenate([centroids / 5.0, colors / 60.0], axis=1), sizes, 4.0)
    near = written_out(centroids / 3.0, sizes, 2.0)
    assert len(found[0]) == len(far)
    for i, j, w in zip(*found, strict=True):
        assert w == pytest.approx(far[i, j] + near[i, j], rel=1e-4)


def test_single_pixels_are_the_dense_crf(rng):
    image = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    unary, labels = rng.normal(0, 1, (5, 6, 3)), rng.integers(0, 3, (5, 6))
    singles = np.arange(30).reshape(5, 6)
    edges = dense_region_weights(singles, image, bilateral_weight=10.0, bilateral_color=80.0)
    found = energy(labels.ravel(), unary.reshape(30, 3), edges)
    expected = dense_energy(labels, unary, image, spatial_weight=0.0, bilateral_color=80.0)
    assert found == pytest.approx(expected, rel=1e-5)


def test_regions_of_like_pixels_are_the_dense_crf(rng):
    """Where the features are those of the region, so is the energy, for any kernel."""
    regions = random_regions(rng, (6, 7), 5)
    features = rng.normal(0, 1, (5, 2))[regions]
    unary, labels = rng.normal(0, 1, (6, 7, 3)), rng.integers(0, 3, 5)
    options = {"bilateral_weight": 0.0, "kernels": [FeatureKernel(3.0, features)]}
    image = np.zeros((6, 7), np.uint8)
    edges = dense_region_weights(regions, image, **options)
    sums = np.stack([unary[regions == r].sum(axis=0) for r in range(5)])
    expected = dense_energy(labels[regions], unary, image, spatial_weight=0.0, **options)
    assert energy(labels, sums, edges) == pytest.approx(expected, rel=1e-5)


def test_pixels_outside_of_all_regions_play_no_part(rng):
    regions = random_regions(rng, (5, 8), 4)
    image = rng.uniform(0, 1, (5, 8, 3))
    regions[2:4, 3:6] = -1
    found = []
    for junk in (np.nan, 0.5):
        image[regions < 0] = junk
        found.append(dense_region_weights(regions, image))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("n_regions", [0, 1])
def test_without_pairs(n_regions):
    i, j, w = dense_region_weights(np.full((2, 3), n_regions - 1), np.zeros((2, 3)))
    assert (i.dtype, j.dtype, w.dtype) == (np.int32, np.int32, np.float32)
    assert len(i) == len(j) == len(w) == 0


def test_regions_give_nearly_the_labels_of_pixels():
    rng = np.random.default_rng(0)
    for image, truth in zip(*halves(), strict=True):
        noise = rng.gumbel(0, 1, (*truth.shape, 3))
        unary = 1.5 * (np.arange(3) != truth[..., np.newaxis]) + noise
        regions = slic(image, 60)
        sums = region_means(unary, regions) * np.bincount(regions.ravel())[:, np.newaxis]
        edges = dense_region_weights(regions, image)
        pixels = mean_field(unary, image).marginals.argmax(axis=-1)
        for labels in (
            graph_cut(sums, edges).labels,
            grid_mean_field(sums, edges).marginals.argmax(axis=-1),
        ):
            assert (labels[regions] == pixels).mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bilateral_weight": -1.0}, "bilateral_weight"),
        ({"bilateral_width": 0.0}, "bilateral_width"),
        ({"kernels": [3]}, r"kernels\[0\]"),
        ({"regions": np.array([[0, 2, 2]])}, "without a pixel"),
        ({"regions": np.array([[0.5, 1, 2]])}, "regions"),
        ({"regions": np.zeros((2, 3), int)}, "regions has shape"),
        ({"regions": np.arange(20_000).reshape(1, -1), "image": np.zeros((1, 20_000))}, "at most"),
    ],
)
def test_bad_input(changes, message):
    given = {"regions": np.array([[0, 1, 2]]), "image": np.zeros((1, 3)), **changes}
    with pytest.raises((TypeError, ValueError), match=message):
        dense_region_weights(given.pop("regions"), given.pop("image"), **given)


@pytest.mark.parametrize("contrast", ["auto", 30.0, None])
def test_a_region_term_has_the_weights_of_the_function(rng, contrast):
    image = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
    regions = np.kron(np.arange(6).reshape(2, 3), np.ones((4, 3), int))
    term = RegionTerm(2.0, contrast)
    graph, means = region_graph(regions), region_means(image, regions)
    expected = region_weights(graph, means, weight=2.0, contrast=contrast)
    labels, unary = rng.integers(0, 2, 6), rng.normal(0, 1, (6, 2))
    found = Energy(unary, [term], image=image, regions=regions).energy(labels)
    assert found == pytest.approx(energy(labels, unary, expected), rel=1e-6)
    with pytest.raises(ValueError, match="weight=-1"):
        RegionTerm(-1.0)


def test_kernels_between_regions_are_those_of_the_function(rng):
    image = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
    regions = np.kron(np.arange(6).reshape(2, 3), np.ones((4, 3), int))
    kernels = [GaussianKernel(1.0, 3.0), GaussianKernel(0.0, 5.0), GaussianKernel(2.0, 9.0)]
    weights = dense_region_weights(regions, image, bilateral_weight=0.0, kernels=kernels)
    labels, unary = rng.integers(0, 2, 6), rng.normal(0, 1, (6, 2))
    found = Energy(unary, kernels, image=image, regions=regions).energy(labels)
    assert found == pytest.approx(energy(labels, unary, weights), rel=1e-9)
