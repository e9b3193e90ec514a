"""Slow twins of ``kernels.superpixels.regions``."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy import ndimage


def connected_components(labels):
    """Connected components, label by label, numbered in raster order of their first pixels."""
    components = np.full(labels.shape, -1)
    n_components = 0
    for label in np.unique(labels[labels >= 0]):
        pieces, n_pieces = ndimage.label(labels == label)
        for piece in range(1, n_pieces + 1):
            components[pieces == piece] = n_components
            n_components += 1
    inside = components >= 0
    _, first, index = np.unique(components[inside], return_index=True, return_inverse=True)
    components[inside] = np.argsort(np.argsort(first))[index]
    return components, n_components


def faces(regions):
    """A Counter of the pixel faces between regions i < j."""
    count = Counter()
    for pixel in np.ndindex(regions.shape):
        for axis in range(regions.ndim):
            other = tuple(p + (a == axis) for a, p in enumerate(pixel))
            if other[axis] < regions.shape[axis]:
                pair = sorted((int(regions[pixel]), int(regions[other])))
                if pair[0] >= 0 and pair[0] != pair[1]:
                    count[tuple(pair)] += 1
    return count


def face_keys(regions, n_regions):
    """The sorted keys."""
    keys = [i * n_regions + j for i, j in faces(regions).elements()]
    return np.sort(np.array(keys, np.int64))


def sums_and_counts(values, regions, n_regions):
    masks = [regions == region for region in range(n_regions)]
    return (
        np.array([values[mask].astype(float).sum(axis=0) for mask in masks]),
        np.array([mask.sum() for mask in masks]),
    )


def soft_histogram(values, low, bin_width, n_bins):
    """The mean over values of triangles one bin wide, sampled at the bin centers."""
    centers = low + (np.arange(n_bins) + 0.5) * bin_width
    inside = np.clip(values.astype(float), centers[0], centers[-1])
    triangles = np.maximum(1 - np.abs(inside[:, None] - centers) / bin_width, 0)
    return triangles.mean(axis=0)


def region_statistics(values, regions, n_regions, low, bin_width, n_bins):
    groups = [values[regions == region].astype(float) for region in range(n_regions)]
    means = np.array([group.mean(axis=0) for group in groups])
    deviations = np.array([group.std(axis=0) for group in groups])
    histograms = np.zeros((n_regions, len(low), n_bins))
    for region, group in enumerate(groups):
        for b in range(len(low)):
            histograms[region, b] = soft_histogram(group[:, b], low[b], bin_width[b], n_bins)
    return means, deviations, histograms


def neighbor_means(edges, lengths, features):
    adjacency = np.zeros((len(features), len(features)))
    for (i, j), length in zip(edges, lengths, strict=True):
        adjacency[i, j] += length
        adjacency[j, i] += length
    total = adjacency.sum(axis=1, keepdims=True)
    return np.where(total > 0, adjacency @ features / np.maximum(total, 1), features)
