"""Morphological snakes [1]_ on packed bits: competing regions, and contours that edges attract.

`evolve_regions` is the morphological Chan-Vese method (section 4.2 of [1]_), `evolve_contour` the
morphological geodesic active contour (section 4.1), with an optional force in addition. An
iteration moves the pixels of the frontier by their data term and then smooths the labels.

Labels (uint8), images and forces are (D, H, W); an image has D = 1 and ``flat=True``. Labels are
packed into ``words`` of 64 pixels (see `bits`). Data terms act only where the central difference of
the labels is not 0, so they are computed only for words that hold such a pixel.

`morphological` in `hybridseg.inference.contours` calls both, and `region_competition` there calls
`evolve_contour` for each label. They run on one thread.

References
----------
.. [1] P. Marquez-Neila, L. Baumela, L. Alvarez, "A morphological approach to curvature-based
   evolution of curves and surfaces", PAMI 36(1), 2014.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.contours.bits import (
    NONE,
    ONE,
    WORD,
    box,
    copy,
    count,
    frontier,
    layout,
    pack,
    same,
    smooth,
    unpack,
)
from hybridseg.kernels.contours.sums import sum_word
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.masks import bits
from hybridseg.kernels.vectors.way import way


@kernel
def _update_means(image, words, known, shape, sums, vectors, means):
    """Write the means of the pixels of labels 0 and 1 to ``means``.

    ``known`` (words,) are the words for which ``sums`` (words, 2) float64 holds the sums of the
    pixels of labels 0 and 1, NaN if not computed yet. Only words that changed are summed again. All
    sums are then added in the order of the words, so that the means depend on the labels only.
    """
    row, plane, margin, _ = layout(shape)
    depth, height, width = shape
    parts = np.empty(16)
    outer, inner, n_ones = 0.0, 0.0, 0
    for z in range(depth):
        for y in range(height):
            for w in range((width + WORD - 1) // WORD):
                at = margin + z * plane + y * row + w
                if words[at] != known[at] or np.isnan(sums[at, 0]):
                    known[at] = words[at]
                    first = (z * height + y) * width + w * WORD
                    n = min(WORD, width - w * WORD)
                    found = sum_word(image, first, n, words[at], vectors, parts)
                    sums[at, 0], sums[at, 1] = found
                outer += sums[at, 0]
                inner += sums[at, 1]
                n_ones += count(words[at])
    means[0] = outer / (image.size - n_ones + 1e-8)
    means[1] = inner / (n_ones + 1e-8)


@kernel
def _compete(image, words, spare, shape, means, weights, vectors):
    """Move pixels of the frontier to the region whose mean is nearer."""
    row, plane, margin, _ = layout(shape)
    depth, height, width = shape
    copy(words, spare)
    for z in range(depth):
        for y in range(height):
            for w in range((width + WORD - 1) // WORD):
                at = margin + z * plane + y * row + w
                moving = frontier(spare, at, z, y, w, shape)
                if moving == NONE:
                    continue
                first = (z * height + y) * width + w * WORD
                # vectors read 64 pixels, also beyond the row, but not beyond the image
                if vectors is None or first + WORD > image.size:
                    last = first + min(WORD, width - w * WORD)
                    enter, leave = _forces(image, first, last, means, weights)
                else:
                    enter, leave = _vector_forces(image, first, moving, means, weights)
                words[at] = (spare[at] | (enter & moving)) & ~(leave & moving)


@kernel
def _forces(image, first, last, means, weights):
    """Return which of up to 64 pixels would enter the region of label 1, and which leave it."""
    outer, inner, outer_weight, inner_weight = means[0], means[1], weights[0], weights[1]
    enter, leave = NONE, NONE
    for k in range(last - first):
        value = image[first + k]
        from_inner, from_outer = value - inner, value - outer
        force = inner_weight * (from_inner * from_inner)
        force -= outer_weight * (from_outer * from_outer)
        enter |= np.uint64(force < 0) << np.uint64(k)
        leave |= np.uint64(force > 0) << np.uint64(k)
    return enter, leave


@kernel
def _vector_forces(image, first, moving, means, weights):
    """Do what `_forces` does for 64 pixels, in groups of eight in which any pixel is ``moving``.

    The pixels may continue in the next row; the caller masks them.
    """
    outer, inner = simd.fill(means[0], 8), simd.fill(means[1], 8)
    outer_weight, inner_weight = simd.fill(weights[0], 8), simd.fill(weights[1], 8)
    enter, leave = NONE, NONE
    for k in range(0, WORD, 8):
        if (moving >> np.uint64(k)) & np.uint64(0xFF):
            values = simd.load(image, first + k, 8)
            from_inner, from_outer = values - inner, values - outer
            gain = outer_weight * (from_outer * from_outer)
            loss = inner_weight * (from_inner * from_inner)
            enter |= bits(simd.less(loss, gain)) << np.uint64(k)
            leave |= bits(simd.less(gain, loss)) << np.uint64(k)
    return enter, leave


@kernel
def _slope(values, at, place, size, step):
    """Return the central difference along an axis, one-sided at its ends, in ``values``' dtype.

    ``at`` is the flat index of the pixel, ``place`` its index along the axis of length ``size``,
    and ``step`` the distance to the next pixel.
    """
    two = values.dtype.type(2)
    if size == 1:
        return values.dtype.type(0)
    if place == 0:
        return values[at + step] - values[at]
    if place == size - 1:
        return values[at] - values[at - step]
    return (values[at + step] - values[at - step]) / two


@kernel
def _label_slope(words, at, bit, place, size, step):
    """Return the difference of the labels along an axis whose next pixel is ``step`` words away.

    The pixel is bit ``bit`` of word ``at``.
    """
    if size == 1:
        return 0.0
    here = np.int64((words[at] >> bit) & ONE)
    later = here if place == size - 1 else np.int64((words[at + step] >> bit) & ONE)
    sooner = here if place == 0 else np.int64((words[at - step] >> bit) & ONE)
    return float(later - sooner) * (1.0 if place in (0, size - 1) else 0.5)


@kernel
def _label_slope_in_row(words, at, x, width):
    """Return the difference of the labels along the row, at column ``x`` in word ``at``."""
    if width == 1:
        return 0.0
    base = at - x // WORD
    before, after = max(x - 1, 0), min(x + 1, width - 1)
    later = np.int64((words[base + after // WORD] >> np.uint64(after % WORD)) & ONE)
    sooner = np.int64((words[base + before // WORD] >> np.uint64(before % WORD)) & ONE)
    return float(later - sooner) * (1.0 if after - before == 1 else 0.5)


@kernel
def _attract(edges, force, weight, words, spare, shape):
    """Move pixels of the frontier by the slope of ``edges``, times ``weight``, and by the force.

    The first term is the product of the slopes of ``edges`` and of the labels; a pixel enters the
    region where the sum is positive and leaves it where it is negative. ``force`` may be empty. It
    pulls to label 0 where it is positive, in proportion to the sum of the absolute slopes of the
    labels.
    """
    row, plane, margin, _ = layout(shape)
    depth, height, width = shape
    number = edges.dtype.type
    copy(words, spare)
    for z in range(depth):
        for y in range(height):
            for w in range((width + WORD - 1) // WORD):
                at = margin + z * plane + y * row + w
                moving = frontier(spare, at, z, y, w, shape)
                enter, leave = NONE, NONE
                while moving != NONE:
                    # the pixels of the word that may move, lowest bit first
                    lowest = moving & (NONE - moving)
                    moving ^= lowest
                    k = count(lowest - ONE)
                    x, bit = w * WORD + k, np.uint64(k)
                    pixel = (z * height + y) * width + x
                    along_z = _label_slope(spare, at, bit, z, depth, plane)
                    along_y = _label_slope(spare, at, bit, y, height, row)
                    along_x = _label_slope_in_row(spare, at, x, width)
                    pull = number(0)
                    if weight != 0:
                        pull = number(_slope(edges, pixel, z, depth, height * width) * along_z)
                        pull = number(pull + _slope(edges, pixel, y, height, width) * along_y)
                        pull = number(pull + _slope(edges, pixel, x, width, 1) * along_x)
                    if len(force) > 0:
                        length = abs(along_z) + abs(along_y) + abs(along_x)
                        pull = number(weight * pull - force[pixel] * length)
                    if pull > 0:
                        enter |= lowest
                    elif pull < 0:
                        leave |= lowest
                words[at] = (spare[at] | enter) & ~leave


def evolve_regions(image, labels, flat, n_iter, smoothing, weights):
    """Iterate morphological Chan-Vese; ``labels`` (uint8) are changed in place.

    ``weights`` are those of the labels 0 and 1, in the dtype of the image (float32 or float64).
    Means are computed in float64 and then rounded to that dtype. The iterations stop as soon as the
    labels repeat, because all further ones are then known. Returns the number of iterations made,
    and whether the labels repeated.
    """
    n_words = layout(labels.shape)[3]
    return _evolve_regions(
        image.reshape(-1),
        labels,
        bool(flat),
        n_iter,
        smoothing,
        weights,
        way(),
        np.zeros((5, n_words), np.uint64),
        np.full((n_words, 2), np.nan),
        np.zeros(2, image.dtype),
    )


@kernel
def _evolve_regions(image, labels, flat, n_iter, smoothing, weights, vectors, maps, sums, means):
    """Make the iterations of `evolve_regions`.

    ``maps`` (5, words) is working memory of words, ``sums`` (words, 2) that of `_update_means`, NaN
    at the start.
    """
    shape = labels.shape
    words, spare, known = maps[0], maps[1], maps[2]
    pack(labels, words, vectors)
    back = 1 + smoothing % 2  # iterations after which the order of SI and IS repeats
    for t in range(n_iter):
        now, before = maps[3 + t % 2], maps[3 + (t + 1) % 2]
        _update_means(image, words, known, shape, sums, vectors, means)
        copy(words, now)
        _compete(image, words, spare, shape, means, weights, vectors)
        smooth(words, spare, shape, flat, smoothing, t * smoothing)
        if t + 1 >= back and same(words, now if back == 1 else before):
            # with period 2, an odd number of remaining iterations ends at the other labels
            unpack(now if back == 2 and (n_iter - 1 - t) % 2 else words, labels, vectors)
            return t + 1, True
    unpack(words, labels, vectors)
    return n_iter, False


def evolve_contour(edges, force, weight, grows, balloon, held, labels, flat, n_iter, smoothing):
    """Iterate a contour under a balloon, edges and a force; change ``labels`` (uint8) in place.

    All arrays are (D, H, W). ``edges`` draws the contour to its low values, times ``weight``.
    ``force`` (flat, or empty) pulls to label 0 where it is positive. ``grows`` (uint8) is 1 where
    the balloon acts, which dilates the labels if ``balloon`` is positive and erodes them if it is
    negative. ``held`` (uint8), (2, D, H, W), is 1 where the label is fixed to 0, and to 1; (2, 1,
    1, 1) if no label is fixed. Stops and returns as `evolve_regions`.
    """
    shape = labels.shape
    return _evolve_contour(
        edges.reshape(-1),
        force,
        weight,
        grows,
        balloon,
        held,
        labels,
        bool(flat),
        n_iter,
        smoothing,
        way(),
        np.zeros((7, layout(shape)[3]), np.uint64),
    )


@kernel
def _evolve_contour(
    field, force, weight, grows, balloon, held, labels, flat, n_iter, smoothing, vectors, maps
):
    """Make the iterations of `evolve_contour`; ``maps`` (7, words) is working memory."""
    shape = labels.shape
    words, spare, open_places, zeros, ones = maps[0], maps[1], maps[2], maps[3], maps[4]
    if balloon != 0:
        pack(grows, open_places, vectors)
    holds = held.shape[1:] == shape
    if holds:
        pack(held[0], zeros, vectors)
        pack(held[1], ones, vectors)
    pack(labels, words, vectors)
    back = 1 + smoothing % 2
    for t in range(n_iter):
        now, before = maps[5 + t % 2], maps[5 + (t + 1) % 2]
        copy(words, now)
        if balloon != 0:
            box(words, spare, shape, flat, balloon > 0)
            for i in range(len(words)):
                words[i] = (words[i] & ~open_places[i]) | (spare[i] & open_places[i])
        _attract(field, force, weight, words, spare, shape)
        smooth(words, spare, shape, flat, smoothing, t * smoothing)
        if holds:
            for i in range(len(words)):
                words[i] = (words[i] & ~zeros[i]) | ones[i]
        if t + 1 >= back and same(words, now if back == 1 else before):
            unpack(now if back == 2 and (n_iter - 1 - t) % 2 else words, labels, vectors)
            return t + 1, True
    unpack(words, labels, vectors)
    return n_iter, False
