"""Label maps packed 64 pixels to a word, and their morphology: a few dozen shifts a word.

The label map is held as one stream of bits: each row has at least one empty bit at its end, each
plane an empty row, and an empty margin lies before and after all. So the neighbor of any pixel
that lies outside of the picture reads as 0, as the morphology asks for, without a test; and since
the center of every structuring element counts, smoothing leaves the empty places empty.

A picture is one plane; ``flat=True`` tells it from a volume that is one plane thick, whose
structuring elements differ.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.masks import bits, truths

ONE = np.uint64(1)
NONE = np.uint64(0)
WORD = 64
_TOP = np.uint64(63)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@kernel
def layout(shape):
    """Words to a row, to a plane, before the first pixel, and in all."""
    depth, height, width = shape
    row = width // WORD + 1
    plane = (height + 1) * row
    margin = plane + row + 1
    return row, plane, margin, depth * plane + 2 * margin


@kernel
def pack(labels, words, vectors):
    """Write where ``labels > 0`` (uint8) into the bits of ``words``."""
    row, plane, margin, _ = layout(labels.shape)
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            line = labels[z, y]
            at = margin + z * plane + y * row
            if vectors is not None:
                none = simd.fill(np.uint8(0), 64)
                for w in range(width // WORD):
                    first = (z * height + y) * width + w * WORD
                    words[at + w] = bits(simd.less(none, simd.load(labels, first, 64)))
            for w in range(0 if vectors is None else width // WORD, row):
                word = NONE
                for k in range(min(WORD, width - w * WORD)):
                    word |= np.uint64(line[w * WORD + k] > 0) << np.uint64(k)
                words[at + w] = word


@kernel
def unpack(words, labels, vectors):
    """Write the bits of ``words`` into ``labels`` (D, H, W) as 0 and 1."""
    row, plane, margin, _ = layout(labels.shape)
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            line = labels[z, y]
            at = margin + z * plane + y * row
            if vectors is not None:
                for w in range(width // WORD):
                    first = (z * height + y) * width + w * WORD
                    simd.store(labels, first, simd.convert(truths(words[at + w], 64), np.uint8))
            for w in range(0 if vectors is None else width // WORD, row):
                word = words[at + w]
                for k in range(min(WORD, width - w * WORD)):
                    line[w * WORD + k] = (word >> np.uint64(k)) & ONE


@kernel
def copy(source, target):
    """A loop, since the assignment to a slice takes seconds to compile."""
    for i in range(len(source)):
        target[i] = source[i]


@kernel
def _smooth_flat(old, new, start, stop, row, dilate):
    """SI of a picture: pixels with both neighbors along one of the 4 lines; IS is its dual.

    IS(u) = not SI(not u), but for the outside, which is 0 in both.
    """
    turn = _ALL if dilate else NONE
    n = stop - start
    here, before, after = old[start:stop], old[start - 1 : stop - 1], old[start + 1 : stop + 1]
    north = old[start - row : stop - row]
    north_before = old[start - row - 1 : stop - row - 1]
    north_after = old[start - row + 1 : stop - row + 1]
    south = old[start + row : stop + row]
    south_before = old[start + row - 1 : stop + row - 1]
    south_after = old[start + row + 1 : stop + row + 1]
    out = new[start:stop]
    for i in range(n):
        u, d, c = north[i] ^ turn, south[i] ^ turn, here[i] ^ turn
        left = (c << ONE) | ((before[i] ^ turn) >> _TOP)
        right = (c >> ONE) | ((after[i] ^ turn) << _TOP)
        u_left = (u << ONE) | ((north_before[i] ^ turn) >> _TOP)
        u_right = (u >> ONE) | ((north_after[i] ^ turn) << _TOP)
        d_left = (d << ONE) | ((south_before[i] ^ turn) >> _TOP)
        d_right = (d >> ONE) | ((south_after[i] ^ turn) << _TOP)
        lines = (left & right) | (u & d) | (u_left & d_right) | (u_right & d_left)
        out[i] = (c & lines) ^ turn


@kernel
def _smooth_volume(old, new, start, stop, row, plane, dilate):
    """SI of a volume: pixels with all 8 neighbors in one of the 9 planes; IS is its dual."""
    turn = _ALL if dilate else NONE
    room = np.empty((4, 13), np.uint64)
    left, middle, right, pair = room[0], room[1], room[2], room[3]
    for i in range(start, stop):
        for j in range(9):
            at = i + (j // 3 - 1) * plane + (j % 3 - 1) * row
            c = old[at] ^ turn
            middle[j] = c
            left[j] = (c << ONE) | ((old[at - 1] ^ turn) >> _TOP)
            right[j] = (c >> ONE) | ((old[at + 1] ^ turn) << _TOP)
        if middle[4] == NONE:
            new[i] = turn
            continue
        for j in range(4):  # the 13 pairs of opposite neighbors
            pair[3 * j] = left[j] & right[8 - j]
            pair[3 * j + 1] = middle[j] & middle[8 - j]
            pair[3 * j + 2] = right[j] & left[8 - j]
        pair[12] = left[4] & right[4]
        found = pair[1] & pair[4] & pair[7] & pair[10]  # x is constant
        found |= pair[3] & pair[4] & pair[5] & pair[12]  # y
        found |= pair[9] & pair[10] & pair[11] & pair[12]  # z
        found |= pair[9] & pair[4] & pair[0] & pair[8]  # y = x
        found |= pair[11] & pair[4] & pair[2] & pair[6]  # y = -x
        found |= pair[3] & pair[10] & pair[0] & pair[6]  # z = x
        found |= pair[5] & pair[10] & pair[2] & pair[8]  # z = -x
        found |= pair[1] & pair[0] & pair[2] & pair[12]  # z = y
        found |= pair[7] & pair[6] & pair[8] & pair[12]  # z = -y
        new[i] = (middle[4] & found) ^ turn


@kernel
def smooth(words, spare, shape, flat, passes, done):
    """SI after IS, or IS after SI in every other pass; ``done`` passes came before."""
    row, plane, start, total = layout(shape)
    stop = total - start
    for i in range(done, done + passes):
        dilate = i % 2 == 0
        if flat:
            _smooth_flat(words, spare, start, stop, row, dilate)
            _smooth_flat(spare, words, start, stop, row, not dilate)
        else:
            _smooth_volume(words, spare, start, stop, row, plane, dilate)
            _smooth_volume(spare, words, start, stop, row, plane, not dilate)


@kernel
def box(words, spare, shape, flat, dilate):
    """Write the dilation or erosion by the 3 x 3 (x 3) box to ``spare``; outside is 0.

    An erosion is the dilation of what is empty. A dilation also reaches the empty places, from
    where the caller must not take it.
    """
    row, plane, margin, total = layout(shape)
    turn = NONE if dilate else _ALL
    start, n = margin - 1, total - 2 * margin + 2
    out = spare[start : start + n]
    for i in range(n):
        out[i] = NONE
    reach = 0 if flat else 1
    for z in range(-reach, reach + 1):
        at = start + z * plane
        north, south = words[at - row : at - row + n], words[at + row : at + row + n]
        here = words[at : at + n]
        for i in range(n):
            out[i] |= (north[i] ^ turn) | (here[i] ^ turn) | (south[i] ^ turn)
    before = out[0]
    for i in range(1, n - 1):
        c = out[i]
        out[i] = ((c | (c << ONE) | (before >> _TOP)) | (c >> ONE) | (out[i + 1] << _TOP)) ^ turn
        before = c


@kernel
def frontier(words, at, z, y, w, shape):
    """Pixels of a word where the central difference of the labels along an axis is not zero."""
    depth, height, width = shape
    row, plane, _, _ = layout(shape)
    last = width - w * WORD  # pixels from here to the end of the row
    c = words[at]
    left = (c << ONE) | (words[at - 1] >> _TOP)
    right = (c >> ONE) | (words[at + 1] << _TOP)
    if w == 0:
        left |= c & ONE
    inside = _ALL
    if last <= WORD:  # beyond the border the labels go on
        end = ONE << np.uint64(last - 1)
        right |= c & end
        inside = end | (end - ONE)
    found = left ^ right
    found |= words[at - row if y > 0 else at] ^ words[at + row if y < height - 1 else at]
    found |= words[at - plane if z > 0 else at] ^ words[at + plane if z < depth - 1 else at]
    return found & inside


@kernel
def count(word):
    """How many bits are set: sums of ever wider fields."""
    two, four = np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
    word = word - ((word >> ONE) & np.uint64(0x5555555555555555))
    word = (word & two) + ((word >> np.uint64(2)) & two)
    word = (word + (word >> np.uint64(4))) & four
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@kernel
def same(a, b):
    """Whether two arrays of words hold the same bits."""
    different = NONE
    for i in range(len(a)):
        different |= a[i] ^ b[i]
    return different == NONE
