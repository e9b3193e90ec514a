"""Regions of a map: connected components, faces between regions, statistics per region."""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.superpixels.runs import (
    find_root as find_root,  # union-find for other kernels too
)
from hybridseg.kernels.superpixels.runs import find_runs, join_runs, paint_runs


@kernel
def connected_components(labels):
    """Find the components of equal labels that touch by faces (4 neighbors, 6 in a volume).

    Parameters
    ----------
    labels : int32 array (D, H, W), C-contiguous, D = 1 for a picture
        Fewer than 2**31 pixels. A negative label belongs to no component.

    Returns
    -------
    components : int32 array (D, H, W)
        0..n-1 in raster order of the first pixel, -1 where the label is negative.
    n_components : int
    """
    starts, firsts = find_runs(labels)
    pieces, n_pieces = join_runs(labels, starts, firsts)
    numbers = np.arange(n_pieces).astype(np.int32)
    return paint_runs(numbers, starts, pieces).reshape(labels.shape), n_pieces


@kernel
def _is_face(a, b):
    return a != b and a >= 0 and b >= 0


@kernel
def _count_row_faces(first, second):
    n_faces = 0
    for x in range(first.size):
        n_faces += _is_face(first[x], second[x])
    return n_faces


@kernel
def _put_row_keys(first, second, n_regions, keys, n_keys):
    for x in range(first.size):
        a, b = first[x], second[x]
        if _is_face(a, b):
            keys[n_keys] = min(a, b) * np.int64(n_regions) + max(a, b)
            n_keys += 1
    return n_keys


@kernel
def face_keys(regions, n_regions):
    """One key ``i * n_regions + j``, i < j, for each pixel face between two regions i and j.

    Parameters
    ----------
    regions : int32 array (D, H, W), C-contiguous
        Values below ``n_regions``; a negative value has no faces.
    n_regions : int

    Returns
    -------
    int64 array (n_faces,), in raster order of the rows
    """
    depth, height, _ = regions.shape
    n_faces = 0
    for z in range(depth):
        for y in range(height):
            row = regions[z, y]
            n_faces += _count_row_faces(row[:-1], row[1:])
            if y > 0:
                n_faces += _count_row_faces(regions[z, y - 1], row)
            if z > 0:
                n_faces += _count_row_faces(regions[z - 1, y], row)
    keys = np.empty(n_faces, np.int64)
    n_keys = 0
    for z in range(depth):
        for y in range(height):
            row = regions[z, y]
            n_keys = _put_row_keys(row[:-1], row[1:], n_regions, keys, n_keys)
            if y > 0:
                n_keys = _put_row_keys(regions[z, y - 1], row, n_regions, keys, n_keys)
            if z > 0:
                n_keys = _put_row_keys(regions[z - 1, y], row, n_regions, keys, n_keys)
    return keys


@kernel
def sums_and_counts(values, regions, n_regions):
    """Sum and number of the values of each region.

    Parameters
    ----------
    values : float32 array (N, F), C-contiguous
    regions : int32 array (N,)
        Values below ``n_regions``; pixels with a negative value are left out.
    n_regions : int

    Returns
    -------
    sums : float64 array (R, F)
    counts : int64 array (R,)
    """
    sums = np.zeros((n_regions, values.shape[1]))
    counts = np.zeros(n_regions, np.int64)
    for pixel in range(regions.size):
        region = regions[pixel]
        if region >= 0:
            counts[region] += 1
            for f in range(values.shape[1]):
                sums[region, f] += values[pixel, f]
    return sums, counts


@kernel
def _add_to_histogram(histogram, value, low, bin_width):
    """Share a value between the two bins whose centers enclose it."""
    last = histogram.size - 1
    place = min(max((value - low) / bin_width - 0.5, 0.0), float(last))
    lower = min(int(place), max(last - 1, 0))
    part = place - lower
    histogram[lower] += 1.0 - part
    if last > 0:
        histogram[lower + 1] += part


@kernel
def region_statistics(values, regions, n_regions, low, bin_width, n_bins):
    """Mean, standard deviation and soft histogram of the values of each region, in one pass.

    The moments are gathered about the first value of each region, so that a large offset costs no
    precision. A value counts in the two bins whose centers enclose it, in proportion: a small
    change of the value is a small change of the histogram.

    Parameters
    ----------
    values : float32 array (N, F), C-contiguous
    regions : int32 array (N,)
        Values below ``n_regions``; pixels with a negative value are left out. No region is empty.
    n_regions : int
    low, bin_width : float64 arrays (B,)
        Lower end and bin width of the first B <= F features, the ones that get a histogram.
    n_bins : int
        Bins of each histogram; 0 where B is 0.

    Returns
    -------
    means, deviations : float64 arrays (R, F)
    histograms : float64 array (R, B, n_bins)
        Each sums to 1 over its bins.
    """
    n_features = values.shape[1]
    origin = np.zeros((n_regions, n_features))
    sums = np.zeros((n_regions, n_features))
    squares = np.zeros((n_regions, n_features))
    histograms = np.zeros((n_regions, low.size, n_bins))
    counts = np.zeros(n_regions, np.int64)
    for pixel in range(regions.size):
        region = regions[pixel]
        if region < 0:
            continue
        if counts[region] == 0:
            origin[region] = values[pixel]
        counts[region] += 1
        for f in range(n_features):
            difference = values[pixel, f] - origin[region, f]
            sums[region, f] += difference
            squares[region, f] += difference * difference
        for b in range(low.size):
            _add_to_histogram(histograms[region, b], values[pixel, b], low[b], bin_width[b])
    for region in range(n_regions):
        sums[region] /= counts[region]
        for f in range(n_features):
            variance = squares[region, f] / counts[region] - sums[region, f] ** 2
            squares[region, f] = np.sqrt(max(variance, 0.0))
        histograms[region] /= counts[region]
    return origin + sums, squares, histograms


@kernel
def neighbor_means(edges, lengths, features):
    """Mean of the features of a region's neighbors, weighted by the length of the boundary.

    A region without neighbors gets its own features.

    Parameters
    ----------
    edges : int32 array (E, 2)
    lengths : float32 array (E,), positive
    features : float64 array (R, F)

    Returns
    -------
    float64 array (R, F)
    """
    n_regions, n_features = features.shape
    means = np.zeros((n_regions, n_features))
    total = np.zeros(n_regions)
    for e in range(lengths.size):
        i, j = edges[e, 0], edges[e, 1]
        total[i] += lengths[e]
        total[j] += lengths[e]
        for f in range(n_features):
            means[i, f] += lengths[e] * features[j, f]
            means[j, f] += lengths[e] * features[i, f]
    for region in range(n_regions):
        if total[region] > 0:
            means[region] /= total[region]
        else:
            means[region] = features[region]
    return means
