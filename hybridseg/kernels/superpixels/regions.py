"""Regions of a label map: connected components, faces between regions, statistics of each region.

`connected_components` is two-pass labeling with union-find on runs (see `runs`). The other kernels
pass once or twice over the pixels, or over the edges of the region graph.

Label maps are int32 (D, H, W), with D = 1 for an image, or flat (N,) in raster order. Regions are
0..R-1, a negative value is no region. Features are (N, F) for pixels and (R, F) for regions.

Callers: `hybridseg.features.regions` (faces, statistics, means of neighbors),
`hybridseg.features.etps` (components and sums), and for `sums_and_counts` also
`hybridseg.pairwise.regions`, `hybridseg.inference.scene_energy` and `hybridseg.deep.features`. All
kernels run on one thread; the order of the sums is that of the pixels.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.superpixels.runs import find_runs, join_runs, paint_runs


@kernel
def connected_components(labels):
    """Find the components of equal labels that touch by faces (4 neighbors, 6 in a volume).

    Parameters
    ----------
    labels : int32 array (D, H, W), C-contiguous, D = 1 for an image
        Fewer than 2**31 pixels. A pixel with a negative label belongs to no component.

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
    """Return whether a and b are two different regions."""
    return a != b and a >= 0 and b >= 0


@kernel
def _count_row_faces(first, second):
    """Return the number of faces between regions of two row segments."""
    n_faces = 0
    for x in range(first.size):
        n_faces += _is_face(first[x], second[x])
    return n_faces


@kernel
def _put_row_keys(first, second, n_regions, keys, n_keys):
    """Append the keys of the faces between two row segments; return the number of all keys."""
    for x in range(first.size):
        a, b = first[x], second[x]
        if _is_face(a, b):
            keys[n_keys] = min(a, b) * np.int64(n_regions) + max(a, b)
            n_keys += 1
    return n_keys


@kernel
def face_keys(regions, n_regions):
    """Return one key ``i * n_regions + j``, i < j, for each pixel face between two regions i and j.

    Parameters
    ----------
    regions : int32 array (D, H, W), C-contiguous
        Values below ``n_regions``. A pixel with a negative value has no faces.
    n_regions : int

    Returns
    -------
    int64 array (n_faces,), in raster order of the rows
    """
    depth, height, _ = regions.shape
    # count the faces first, so that the keys need no more memory than they fill
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
    """Return the sum and the number of the values of each region.

    Parameters
    ----------
    values : float32 array (N, F), C-contiguous
    regions : int32 array (N,)
        Values below ``n_regions``. Pixels with a negative value do not count.
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
    """Divide a value between the two bins whose centers enclose it."""
    last = histogram.size - 1
    place = min(max((value - low) / bin_width - 0.5, 0.0), float(last))
    lower = min(int(place), max(last - 1, 0))
    part = place - lower
    histogram[lower] += 1.0 - part
    if last > 0:
        histogram[lower + 1] += part


@kernel
def region_statistics(values, regions, n_regions, low, bin_width, n_bins):
    """Return mean, standard deviation and soft histogram of the values of each region, in one pass.

    Sums are taken of differences from the first value of each region, so that a large offset costs
    no precision. A value counts in the two bins whose centers enclose it, in proportion to its
    distance from the other center, so that a small change of a value changes the histogram little.

    Parameters
    ----------
    values : float32 array (N, F), C-contiguous
    regions : int32 array (N,)
        Values below ``n_regions``. Pixels with a negative value do not count. No region is empty.
    n_regions : int
    low, bin_width : float64 arrays (B,)
        Lower end and bin width of the first B <= F features, which get a histogram.
    n_bins : int
        Number of bins of each histogram; 0 if B is 0.

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
    # from sums to means, and from squares to standard deviations
    for region in range(n_regions):
        sums[region] /= counts[region]
        for f in range(n_features):
            variance = squares[region, f] / counts[region] - sums[region, f] ** 2
            squares[region, f] = np.sqrt(max(variance, 0.0))
        histograms[region] /= counts[region]
    return origin + sums, squares, histograms


@kernel
def neighbor_means(edges, lengths, features):
    """Return the mean features of each region's neighbors, weighted by the length of the boundary.

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
