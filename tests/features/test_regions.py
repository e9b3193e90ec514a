"""Graph, means, labels and features of regions equal loops over the regions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from hybridseg.features import (
    RegionFeatures,
    region_graph,
    region_labels,
    region_means,
    region_sums,
    slic,
)
from hybridseg.features.pixels import gaussian_response, perceptual_colors
from tests.oracles.superpixels import regions as oracles

SHAPES = [(9, 13), (1, 7), (6, 1), (3, 5, 4), (1, 1)]
ALL_OFF = {"n_bins": 0, "sigmas": (), "context": 0, "size": False}


def random_regions(shape, n_regions=5, seed=0):
    """A map of the numbers 0..R-1, in which each region has a pixel."""
    n_regions = min(n_regions, int(np.prod(shape)))
    regions = np.random.default_rng(seed).integers(0, n_regions, shape)
    regions.ravel()[:n_regions] = np.arange(n_regions)
    return regions, n_regions


def random_colors(shape, n_channels=3, seed=1):
    return np.random.default_rng(seed).uniform(0, 255, (*shape, n_channels)).astype(np.float32)


def smooth_scene(n_channels=3, shape=(40, 56)):
    """Colors that vary smoothly, and their superpixels."""
    places = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    waves = [np.sin((c + 1) * places[0] + places[1] * (c - 1)) for c in range(n_channels)]
    colors = (127 + 120 * np.stack(waves, axis=-1)).astype(np.float32)
    return colors, slic(colors, 30, intensity_range=(0, 255))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_graph_equals_brute_force(shape, dtype):
    regions, n_regions = random_regions(shape)
    graph = region_graph(regions.astype(dtype))
    expected = sorted(oracles.faces(regions).items())
    assert graph.n_regions == n_regions
    assert (graph.edges.dtype, graph.lengths.dtype) == (np.int32, np.float32)
    assert graph.edges.shape == (len(expected), 2)
    assert [(tuple(e), n) for e, n in zip(graph.edges, graph.lengths, strict=True)] == expected


def test_graph_leaves_out_negative_pixels():
    graph = region_graph(np.array([[0, -1, 1], [0, 2, -5]]))
    np.testing.assert_array_equal(graph.edges, [[0, 2]])
    assert graph.n_regions == 3


def test_graph_without_regions():
    graph = region_graph(np.full((3, 4), -1))
    assert graph.n_regions == 0
    assert graph.edges.shape == (0, 2)


def test_graph_of_flipped_and_transposed_map_is_the_same():
    regions, _ = random_regions((7, 12))
    graph = region_graph(regions)
    for other in (regions[::-1], regions[:, ::-1], regions.T):
        mirrored = region_graph(other)
        np.testing.assert_array_equal(mirrored.edges, graph.edges)
        np.testing.assert_array_equal(mirrored.lengths, graph.lengths)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_means_equal_loop(shape, dtype):
    regions, n_regions = random_regions(shape)
    colors = random_colors(shape).astype(dtype)
    means = region_means(colors, regions)
    sums, counts = oracles.sums_and_counts(colors.astype(np.float32), regions, n_regions)
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, sums / counts[:, None], rtol=1e-6)


def test_means_accept_any_layout_and_write_nothing():
    regions, _ = random_regions((9, 13))
    colors = random_colors((9, 13))
    means = region_means(colors, regions)
    before = colors.copy()
    colors.flags.writeable = regions.flags.writeable = False
    np.testing.assert_array_equal(region_means(colors, regions), means)
    np.testing.assert_array_equal(
        region_means(np.asfortranarray(colors), regions.T.copy().T), means
    )
    np.testing.assert_array_equal(colors, before)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_equal_brute_force(shape):
    regions, n_regions = random_regions(shape)
    regions.ravel()[-1] = -1 if regions.size > n_regions else regions.ravel()[-1]
    costs = random_colors(shape, 4).astype(np.float64)
    sums = region_sums(costs, regions)
    expected, _ = oracles.sums_and_counts(costs, regions, n_regions)
    assert sums.dtype == np.float32
    np.testing.assert_allclose(sums, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="values is"):
        region_sums(np.concatenate([costs, costs]), regions)


@pytest.mark.parametrize("seed", range(3))
def test_labels_equal_loop(seed):
    rng = np.random.default_rng(seed)
    regions, n_regions = random_regions((9, 13), 8, seed)
    labels = np.where(rng.random((9, 13)) < 0.2, rng.choice([3, 7, 200], (9, 13)), -4)
    majority, weights = region_labels(regions, labels, n_regions + 1)
    for region in range(n_regions + 1):
        values, counts = np.unique(labels[(regions == region) & (labels >= 0)], return_counts=True)
        assert weights[region] == (counts.max() if counts.size else 0)
        assert majority[region] == (values[counts.argmax()] if counts.size else -1)


def test_labels_tie_goes_to_the_smaller():
    majority, weights = region_labels([[0, 0, 0, 0]], [[9, 2, 9, 2]], 1)
    assert (majority[0], weights[0]) == (2, 2)


def test_labels_of_unlabeled_map():
    majority, weights = region_labels(np.zeros((2, 3), int), np.full((2, 3), -1), 2)
    np.testing.assert_array_equal(majority, [-1, -1])
    np.testing.assert_array_equal(weights, [0, 0])


@pytest.mark.parametrize("n_channels", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", [(9, 13), (4, 6, 5), (1, 1), (1, 8)])
def test_features_are_finite_and_of_known_width(n_channels, shape):
    regions, n_regions = random_regions(shape)
    features = RegionFeatures(position=True)(random_colors(shape, n_channels), regions)
    responses = n_channels * (1 + 2 * 2)
    own = 2 * responses + 8 * n_channels + 1
    assert features.shape == (n_regions, 3 * own + len(shape))
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_color_features_equal_loop(n_channels):
    regions, n_regions = random_regions((9, 13))
    colors = random_colors((9, 13), n_channels)
    features = RegionFeatures(**ALL_OFF | {"n_bins": 4})(colors, regions)
    channels = perceptual_colors(colors)
    ends = {2: [(0, 255)] * 2}.get(n_channels, [(0, 100), (-60, 60), (-60, 60)][:n_channels])
    for region in range(n_regions):
        mine = channels[regions == region].astype(float)
        histograms = [
            oracles.soft_histogram(mine[:, c], low, (high - low) / 4, 4)
            for c, (low, high) in enumerate(ends)
        ]
        expected = np.concatenate([mine.mean(axis=0), mine.std(axis=0), *histograms])
        np.testing.assert_allclose(features[region], expected, rtol=1e-4, atol=1e-4)


def test_texture_features_equal_loop():
    regions, n_regions = random_regions((9, 13))
    colors = random_colors((9, 13), 2)
    features = RegionFeatures(**ALL_OFF | {"sigmas": (1.5,)})(colors, regions, (2.0, 1.0))
    planes = [colors[..., 0], colors[..., 1]]
    for c in range(2):
        response = gaussian_response(planes[c], 1.5, (2.0, 1.0))
        planes += [response.gradient_magnitude(), response.laplacian()]
    for region in range(n_regions):
        mine = np.stack([plane[regions == region] for plane in planes]).astype(float)
        expected = np.concatenate([mine.mean(axis=1), mine.std(axis=1)])
        np.testing.assert_allclose(features[region], expected, rtol=1e-4, atol=1e-4)


def test_context_is_the_mean_of_the_neighbors():
    colors, regions = smooth_scene()
    alone = RegionFeatures(context=0)(colors, regions)
    both = RegionFeatures(context=2)(colors, regions)
    graph = region_graph(regions)
    once = oracles.neighbor_means(graph.edges, graph.lengths, alone.astype(float))
    twice = oracles.neighbor_means(graph.edges, graph.lengths, once)
    np.testing.assert_allclose(both, np.hstack([alone, once, twice]), rtol=1e-4, atol=1e-3)


def test_a_single_region_is_its_own_context():
    regions = np.zeros((5, 6), int)
    features = RegionFeatures(context=1)(random_colors((5, 6)), regions)
    own, context = np.split(features[0], 2)
    np.testing.assert_array_equal(own, context)


def test_position_and_size():
    regions = np.repeat([0, 1], [2, 6])[None].repeat(4, axis=0)
    features = RegionFeatures(**ALL_OFF | {"size": True, "position": True})(
        random_colors((4, 8), 1), regions
    )
    np.testing.assert_allclose(features[:, -3], np.log([8, 24]), rtol=1e-6)
    np.testing.assert_allclose(features[:, -2:], [[0.5, 0.125], [0.5, 0.625]], rtol=1e-6)


def test_features_follow_the_numbering():
    colors, regions = smooth_scene()
    features = RegionFeatures()(colors, regions)
    order = np.random.default_rng(5).permutation(len(features))
    renumbered = RegionFeatures()(colors, order[regions])
    np.testing.assert_allclose(renumbered[order], features, rtol=1e-4, atol=1e-4)


def test_features_of_mirrored_and_transposed_images_are_the_same():
    colors, regions = smooth_scene()
    features = RegionFeatures()(colors, regions)
    for turn in (np.flipud, np.fliplr, lambda a: a.swapaxes(0, 1)):
        turned = RegionFeatures()(turn(colors), turn(regions))
        np.testing.assert_allclose(turned, features, rtol=1e-3, atol=1e-2)


def test_features_follow_the_order_of_channels():
    colors, regions = smooth_scene(4)
    options = {"n_bins": 0, "sigmas": (), "context": 0, "size": False}
    features = RegionFeatures(**options)(colors, regions)
    turned = RegionFeatures(**options)(colors[..., ::-1], regions)
    np.testing.assert_allclose(turned[:, :4], features[:, 3::-1], rtol=1e-6)
    np.testing.assert_allclose(turned[:, 4:], features[:, :3:-1], rtol=1e-6)


def test_features_leave_out_masked_pixels():
    colors, regions = smooth_scene()
    options = {"sigmas": (), "context": 0}
    expected = RegionFeatures(**options)(colors, regions)[1:]
    masked = RegionFeatures(**options)(colors, regions - 1)
    np.testing.assert_allclose(masked, expected, rtol=1e-5, atol=1e-5)


def test_features_write_nothing_and_are_cloned():
    colors, regions = smooth_scene()
    extractor = RegionFeatures(n_bins=3, position=True)
    features = extractor(colors, regions)
    colors.flags.writeable = regions.flags.writeable = False
    np.testing.assert_array_equal(clone(extractor)(colors, regions), features)
    np.testing.assert_array_equal(
        extractor(np.asfortranarray(colors), regions[::-1][::-1]), features
    )


@pytest.mark.parametrize(
    ("regions", "error", "message"),
    [
        (np.zeros((4, 5)), TypeError, "regions has dtype float64"),
        (np.zeros((4, 6), int), ValueError, "regions has shape"),
        (np.zeros(4, int), ValueError, "regions has shape"),
        (np.full((4, 5), 2), ValueError, "lacks 2 of the numbers"),
    ],
)
def test_bad_regions(regions, error, message):
    with pytest.raises(error, match=message):
        region_means(random_colors((4, 5)), regions)
    with pytest.raises((TypeError, ValueError), match="regions|colors"):
        RegionFeatures()(random_colors((4, 5)), regions)


def test_region_number_beyond_the_count():
    with pytest.raises(ValueError, match="regions holds the number 3, but n_regions=3"):
        region_labels([[0, 3]], [[1, 1]], 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_bins": -1}, "n_bins"), ({"context": -1}, "context"), ({"sigmas": (0.0,)}, "sigmas")],
)
def test_bad_feature_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        RegionFeatures(**options)(random_colors((4, 5)), np.zeros((4, 5), int))


def test_colors_with_nan():
    with pytest.raises(ValueError, match="colors holds NaN"):
        RegionFeatures()(np.full((4, 5, 1), np.nan), np.zeros((4, 5), int))


def test_numbers_beyond_32_bits_are_refused():
    with pytest.raises(ValueError, match="regions holds the number 4294967297"):
        region_graph([[0, 2**32 + 1]])
