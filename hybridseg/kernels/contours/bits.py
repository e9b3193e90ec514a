"""Binary label maps packed 64 pixels to a word, and the morphological operators of [1]_ on them.

`smooth` composes the operators SI and IS of [1]_ (morphological curvature), `box` dilates or erodes
by a 3 x 3 (x 3) box. They are a few dozen shifts and logical operations for each word.

A label map is one stream of bits in uint64 ``words``, the first pixel of a word in its lowest bit.
Each row has at least one empty bit at its end, each plane an empty row, and an empty margin lies
before and after all (see `layout`). So any neighbor outside the image reads as 0, as the morphology
asks for, without a test. Each structuring element contains its center, and one of them lies along
the empty column, row or plane, so smoothing leaves the empty places empty.

An image is one plane (D = 1). ``flat=True`` distinguishes it from a volume that is one plane thick,
which has other structuring elements. `snakes` calls these kernels, on one thread.

References
----------
.. [1] P. Marquez-Neila, L. Baumela, L. Alvarez, "A morphological approach to curvature-based
   evolution of curves and surfaces", PAMI 36(1), 2014.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.masks import bits, truths

ONE = np.uint64(1)
NONE = np.uint64(0)
#: Pixels in a word.
WORD = 64
_TOP = np.uint64(63)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@kernel
def layout(shape):
    """Return the words of a row, of a plane, before the first pixel, and of the whole map."""
    depth, height, width = shape
    row = width // WORD + 1
    plane = (height + 1) * row
    margin = plane + row + 1
    return row, plane, margin, depth * plane + 2 * margin


@kernel
def pack(labels, words, vectors):
    """Write ``labels > 0``, for uint8 labels (D, H, W), to the bits of ``words``.

    With vectors, full words come from one comparison of 64 labels; the last word of a row is made
    bit by bit.
    """
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
    """Write the bits of ``words`` to ``labels`` (D, H, W) as 0 and 1."""
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
    """Copy one array to another; numba is slow to compile the assignment to a slice."""
    for i in range(len(source)):
        target[i] = source[i]


@kernel
def _smooth_flat(old, new, start, stop, row, dilate):
    """Apply SI to an image, or its dual IS with ``dilate``.

    SI keeps a pixel if both its neighbors along one of 4 lines are set too. IS(u) = not SI(not u),
    except that the outside is 0 in both.
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
    # the word and its 8 neighboring directions, complemented for IS
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
    """Apply SI to a volume, or its dual IS with ``dilate``.

    SI keeps a voxel if all 8 neighbors in one of 9 planes are set too. A plane is 4 of the 13 pairs
    of opposite neighbors.
    """
    turn = _ALL if dilate else NONE
    room = np.empty((4, 13), np.uint64)
    left, middle, right, pair = room[0], room[1], room[2], room[3]
    for i in range(start, stop):
        # the 9 words above, below and beside this one, each with its shifts by one bit
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
        found = pair[1] & pair[4] & pair[7] & pair[10]  # plane of constant x
        found |= pair[3] & pair[4] & pair[5] & pair[12]  # constant y
        found |= pair[9] & pair[10] & pair[11] & pair[12]  # constant z
        found |= pair[9] & pair[4] & pair[0] & pair[8]  # y = x
        found |= pair[11] & pair[4] & pair[2] & pair[6]  # y = -x
        found |= pair[3] & pair[10] & pair[0] & pair[6]  # z = x
        found |= pair[5] & pair[10] & pair[2] & pair[8]  # z = -x
        found |= pair[1] & pair[0] & pair[2] & pair[12]  # z = y
        found |= pair[7] & pair[6] & pair[8] & pair[12]  # z = -y
        new[i] = (middle[4] & found) ^ turn


@kernel
def smooth(words, spare, shape, flat, passes, done):
    """Make ``passes`` smoothing passes: alternately SI after IS, and IS after SI.

    ``done`` is the number of passes that came before and says which is next. The result is in
    ``words``.
    """
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

    An erosion is the complement of the dilation of the complement. A dilation also sets empty
    places, which the caller must mask.
    """
    row, plane, margin, total = layout(shape)
    turn = NONE if dilate else _ALL
    start, n = margin - 1, total - 2 * margin + 2
    out = spare[start : start + n]
    for i in range(n):
        out[i] = NONE
    reach = 0 if flat else 1
    # across rows and planes
    for z in range(-reach, reach + 1):
        at = start + z * plane
        north, south = words[at - row : at - row + n], words[at + row : at + row + n]
        here = words[at : at + n]
        for i in range(n):
            out[i] |= (north[i] ^ turn) | (here[i] ^ turn) | (south[i] ^ turn)
    # along rows, in place; ``before`` is the word before, as it was
    before = out[0]
    for i in range(1, n - 1):
        c = out[i]
        out[i] = ((c | (c << ONE) | (before >> _TOP)) | (c >> ONE) | (out[i + 1] << _TOP)) ^ turn
        before = c


@kernel
def frontier(words, at, z, y, w, shape):
    """Return the pixels of a word where the central difference of labels along an axis is not 0.

    The word has the place ``at``; it is word ``w`` of row (z, y). Beyond the border of the image,
    labels continue.
    """
    depth, height, width = shape
    row, plane, _, _ = layout(shape)
    last = width - w * WORD  # pixels from here to the end of the row
    c = words[at]
    left = (c << ONE) | (words[at - 1] >> _TOP)
    right = (c >> ONE) | (words[at + 1] << _TOP)
    if w == 0:
        left |= c & ONE
    inside = _ALL
    if last <= WORD:  # the last word of a row: labels continue beyond its end
        end = ONE << np.uint64(last - 1)
        right |= c & end
        inside = end | (end - ONE)
    found = left ^ right
    found |= words[at - row if y > 0 else at] ^ words[at + row if y < height - 1 else at]
    found |= words[at - plane if z > 0 else at] ^ words[at + plane if z < depth - 1 else at]
    return found & inside


@kernel
def count(word):
    """Return the number of bits that are set, from sums of ever wider fields."""
    two, four = np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
    word = word - ((word >> ONE) & np.uint64(0x5555555555555555))
    word = (word & two) + ((word >> np.uint64(2)) & two)
    word = (word + (word >> np.uint64(4))) & four
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@kernel
def same(a, b):
    """Return whether two arrays of words hold the same bits."""
    different = NONE
    for i in range(len(a)):
        different |= a[i] ^ b[i]
    return different == NONE
