"""The kernels on regions equal their slow twins."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.superpixels import regions as kernels
from tests.oracles.superpixels import regions as oracles

SHAPES = [(1, 1, 1), (1, 1, 7), (1, 7, 1), (5, 1, 1), (1, 9, 13), (4, 5, 7)]


def random_map(shape, n_labels=3, seed=0, low=-1):
    return np.random.default_rng(seed).integers(low, n_labels, shape).astype(np.int32)


def every_region(shape, n_regions, seed=0):
    """A map of the numbers 0..n_regions-1, in which each region has a pixel."""
    regions = random_map(shape, n_regions, seed)
    regions.ravel()[:n_regions] = np.arange(n_regions)
    return regions


@pytest.mark.parametrize("shape", SHAPES)
def test_connected_components_equal_twin(shape):
    labels = random_map(shape)
    components, n_components = kernels.connected_components(labels)
    expected, n_expected = oracles.connected_components(labels)
    assert n_components == n_expected
    np.testing.assert_array_equal(components, expected)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (-1, -1)])
def test_connected_components_of_one_label(value, expected):
    components, n_components = kernels.connected_components(np.full((2, 3, 4), value, np.int32))
    assert n_components == expected + 1
    assert (components == expected).all()


def test_connected_components_join_late():
    """The arms of a comb meet only in the last row."""
    labels = np.tile(np.array([0, 1], np.int32), 6).reshape(1, 1, 12).repeat(5, axis=1)
    labels[0, -1] = 0
    components, n_components = kernels.connected_components(np.ascontiguousarray(labels))
    assert n_components == 7
    assert (components[labels == 0] == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_face_keys_equal_twin(shape):
    regions = random_map(shape, 5)
    keys = kernels.face_keys(regions, 5)
    assert keys.dtype == np.int64
    np.testing.assert_array_equal(np.sort(keys), oracles.face_keys(regions, 5))


def test_face_keys_do_not_overflow():
    regions = np.array([[[0, 99_999, 99_998]]], np.int32)
    keys = kernels.face_keys(regions, 100_000)
    np.testing.assert_array_equal(keys, [99_999, 99_998 * 100_000 + 99_999])


def test_sums_and_counts_equal_twin():
    regions = every_region((60,), 6)
    values = np.random.default_rng(1).normal(100, 20, (60, 3)).astype(np.float32)
    sums, counts = kernels.sums_and_counts(values, regions, 6)
    expected_sums, expected_counts = oracles.sums_and_counts(values, regions, 6)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-12)
    np.testing.assert_array_equal(counts, expected_counts)


@pytest.mark.parametrize("n_bins", [1, 2, 5])
@pytest.mark.parametrize("n_features", [2, 4])
def test_region_statistics_equal_twin(n_bins, n_features):
    regions = every_region((80,), 5)
    values = np.random.default_rng(2).uniform(-1, 12, (80, n_features)).astype(np.float32)
    low, width = np.array([0.0, 2.0]), np.array([10.0, 8.0]) / n_bins
    result = kernels.region_statistics(values, regions, 5, low, width, n_bins)
    expected = oracles.region_statistics(values, regions, 5, low, width, n_bins)
    for ours, twin in zip(result, expected, strict=True):
        np.testing.assert_allclose(ours, twin, atol=1e-9)
    np.testing.assert_allclose(result[2].sum(axis=-1), 1)


def test_region_statistics_without_histogram():
    values = np.random.default_rng(3).random((9, 2), np.float32)
    nothing = np.empty(0)
    _, _, histograms = kernels.region_statistics(
        values, np.zeros(9, np.int32), 1, nothing, nothing, 0
    )
    assert histograms.shape == (1, 0, 0)


def test_region_statistics_are_precise_far_from_zero():
    steps = 8.0 * np.arange(6) ** 2
    values = (1e8 + steps).astype(np.float32).reshape(-1, 1)
    nothing = np.empty(0)
    _, deviations, _ = kernels.region_statistics(
        values, np.zeros(6, np.int32), 1, nothing, nothing, 0
    )
    assert deviations[0, 0] == pytest.approx(steps.std(), rel=1e-12)


def test_neighbor_means_equal_twin():
    edges = np.array([[0, 1], [0, 3], [1, 3]], np.int32)
    lengths = np.array([3, 1, 2], np.float32)
    features = np.random.default_rng(4).normal(size=(4, 5))
    result = kernels.neighbor_means(edges, lengths, features)
    np.testing.assert_allclose(result, oracles.neighbor_means(edges, lengths, features))
    np.testing.assert_array_equal(result[2], features[2])  # region 2 has no neighbor
