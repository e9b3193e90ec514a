"""The dense CRF between regions equals its formula, and refuses bad input."""

from inspect import signature

import numpy as np
import pytest

from hybridseg.features import RegionGraph, region_graph, region_means, slic
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
    """If all pixels of a region have the same features, the energies are equal for any kernel."""
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


def test_neighbors_pay_for_their_border_less_where_colors_differ():
    graph = region_graph([[0, 0, 1], [2, 2, 1]])  # borders of 1, 2 and 1 faces
    colors = [[0.0, 10.0], [30.0, 50.0], [0.0, 10.0]]  # 50 apart
    i, j, weights = region_weights(graph, colors, weight=3.0, contrast=25.0)
    assert (i.tolist(), j.tolist()) == ([0, 0, 1], [1, 2, 2])
    far = np.exp(-(50**2) / (2 * 25**2))
    np.testing.assert_allclose(weights, [3 * far, 3 * 2, 3 * far], rtol=1e-6)
    uniform = region_weights(graph, colors, weight=3.0, contrast=None)[2]
    np.testing.assert_array_equal(uniform, [3, 6, 3])
    mean_square = 2 * 50**2 / 4  # two of the four faces
    automatic = region_weights(graph, colors)[2]
    expected = np.exp(-(50**2) / (2 * mean_square))
    np.testing.assert_allclose(automatic, [expected, 2, expected], rtol=1e-6)


@pytest.mark.parametrize("colors", [np.zeros((2, 3)), np.zeros(3), np.zeros((3, 1, 1))])
def test_every_region_of_a_graph_has_a_row_of_colors(colors):
    graph = region_graph([[0, 0, 1], [2, 2, 1]])
    with pytest.raises(ValueError, match=r"expected \(R, C\): .* each of the 3 regions"):
        region_weights(graph, colors)
    assert region_weights(graph, np.zeros((4, 3)))[2].shape == (3,)  # more do no harm


def test_weights_of_long_borders_stay_within_float32():
    def weights(length, weight):
        edges, lengths = np.array([[0, 1]], np.int32), np.array([length], np.float32)
        return region_weights(RegionGraph(edges, lengths, 2), np.zeros((2, 1)), weight=weight)[2]

    assert weights(1e6, 9e29)[0] == pytest.approx(9e35)
    with pytest.raises(ValueError, match=r"weight=1e\+30 makes edges of 2e\+36; expected at most"):
        weights(2e6, 1e30)


def test_more_regions_than_pairs_fit_memory_are_refused():
    many = np.arange(2**14 + 1).reshape(1, -1)
    with pytest.raises(ValueError, match="regions holds 16385 regions, .* at most 16384"):
        dense_region_weights(many, np.zeros(many.shape, np.uint8))


def test_the_defaults_are_those_of_mean_field_but_for_the_weight():
    ours, theirs = signature(dense_region_weights).parameters, signature(mean_field).parameters
    assert ours["bilateral_weight"].default == 3.0
    for name in (ours.keys() & theirs.keys()) - {"bilateral_weight"}:
        assert ours[name].default == theirs[name].default, name
