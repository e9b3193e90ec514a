"""Tables that number packed keys: a hash table, and a direct table for keys in a small range.

`hybridseg.kernels.dense.lattice_build` numbers the vertices of a permutohedral lattice with them.
A key consists of one or more int64 words; the first axis of an array of keys is the word. The keys
of all numbered vertices are in ``vertex_keys`` (words, room), in the order of their numbers.

The hash table ``table`` (buckets, 8) int64 has a power of two of buckets. A bucket is one cache
line: four tags, then the four numbers plus one, where 0 means free. The tag of a key is its hash
of 64 bits (Fibonacci hashing, D. E. Knuth, "The art of computer programming", volume 3, section
6.4); two keys of one word have the same tag only if they are equal. A bucket fills from the left,
and a key that finds it full goes to the next one. At most half of all slots are used.

The direct table ``direct`` (2^b,) int32 is for keys of one word that are all within a range of 2^b.
They differ in their lowest b bits, which are the index of their entry, the number plus one (0 means
free). So no key is compared, and no branch can be predicted wrongly.

Each thread has a table of its own while it fills it; several threads may look up keys in one table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd

Keys = NDArray[np.int64]
Numbers = NDArray[np.int32]

#: The number of keys in a bucket.
SLOTS = 4

#: The buckets of keys are fetched into the cache this many rows ahead.
_ROWS_AHEAD = 16

#: The largest room for keys with which a table has four slots for each key, otherwise two: such
#: tables are small, and more free slots make look-ups shorter.
MAX_KEYS_WITH_FOUR_SLOTS = 1 << 17


def grow(vertex_keys: Keys, n_vertices: int, room: int) -> tuple[Keys, Keys]:
    """Return larger arrays ``vertex_keys`` and ``table`` with the keys that there are already.

    ``room`` is the number of keys for which there is space then, a power of two. NumPy allocates
    the arrays, because it asks the system for large memory pages.
    """
    larger = np.empty((len(vertex_keys), room), np.int64)
    slots = 4 * room if room <= MAX_KEYS_WITH_FOUR_SLOTS else 2 * room
    table = simd.aligned((max(1, slots // SLOTS), 2 * SLOTS), np.int64)
    places = np.zeros(n_vertices, np.int64)
    enter(vertex_keys, places, n_vertices, np.empty(1, np.int32), 0, larger, table)
    return larger, table


@kernel
def tag(keys: Keys, n_rows: int, tags: Keys) -> None:
    """Write the tags (columns, rows) of keys (words, columns, rows), for the first rows."""
    n_words, n_columns, _ = keys.shape
    for column in range(n_columns):
        for p in range(n_rows):
            tags[column, p] = _mixed(np.int64(0), keys[0, column, p])
        for word in range(1, n_words):
            for p in range(n_rows):
                tags[column, p] = _mixed(tags[column, p], keys[word, column, p])


@kernel
def _mixed(tag: Any, key: Any) -> Any:
    """Return the hash of a word and the tag of the words before it.

    It multiplies by 2^64 / golden ratio and folds the high bits into the low ones. Both steps can
    be inverted, so different words have different tags.
    """
    mixed = np.uint64(tag ^ key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed ^ (mixed >> np.uint64(32)))


@kernel
def find(
    keys: Keys,
    tags: Keys,
    count: int,
    vertex_keys: Keys,
    table: Keys,
    numbers: Numbers,
    place: int,
    lost: Keys,
) -> int:
    """Write the numbers of keys (words, columns, RUN), row by row, from ``numbers[place]`` on.

    A key that is not in the table gets -1, and its index is listed in ``lost``. Returns the number
    of such keys. ``count`` is the number of rows, ``tags`` are those of `tag`.
    """
    if simd.ENABLED and len(keys) == 1:
        n_far = _find_at_home(tags, count, table, numbers, place, lost)
        _find_beyond(tags, table, numbers, place, lost, n_far)
    else:
        _find_keys(keys, tags, count, vertex_keys, table, numbers, place)
    n_lost = 0
    for i in range(count * len(tags)):
        lost[n_lost] = i
        n_lost += 1 if numbers[place + i] < 0 else 0
    return n_lost


@kernel
def _find_at_home(
    tags: Keys, count: int, table: Keys, numbers: Numbers, place: int, far: Keys
) -> Any:
    """Look up keys of one word in the buckets of their tags only; equal tags mean equal keys.

    Lists keys that are not in their bucket although it is full, and returns how many these are.
    The loop has no branches, because whether a key is in the table is hard to predict.
    """
    mask = len(table) - 1
    zeros = simd.fill(np.int64(0), SLOTS)
    n_far, row = np.int64(0), 0
    for p in range(count):
        later = min(p + _ROWS_AHEAD, count - 1)
        for column in range(len(tags)):
            simd.prefetch(table, (tags[column, later] & mask) * (2 * SLOTS))
            tag = tags[column, p]
            start = (tag & mask) * (2 * SLOTS)
            same = simd.equal(simd.load(table, start, SLOTS), simd.fill(tag, SLOTS))
            number = simd.total(simd.select(same, simd.load(table, start + SLOTS, SLOTS), zeros))
            numbers[place + row] = number - 1
            far[n_far] = row
            is_full = table[np.uint64(tag & mask), 2 * SLOTS - 1] > 0
            n_far += np.int64(is_full & (number == 0))
            row += 1
    return n_far


@kernel
def _find_beyond(
    tags: Keys, table: Keys, numbers: Numbers, place: int, far: Keys, n_far: int
) -> None:
    """Look up the listed keys of one word in the buckets after their own."""
    mask = len(table) - 1
    for i in range(n_far):
        tag = tags[far[i] % len(tags), far[i] // len(tags)]
        bucket, slot = np.uint64((tag + 1) & mask), 0
        number = table[bucket, SLOTS]
        while number > 0 and table[bucket, slot] != tag:
            slot += 1
            if slot == SLOTS:
                slot, bucket = 0, np.uint64((np.int64(bucket) + 1) & mask)
            number = table[bucket, SLOTS + slot]
        numbers[place + far[i]] = number - 1


@kernel
def _find_keys(
    keys: Keys,
    tags: Keys,
    count: int,
    vertex_keys: Keys,
    table: Keys,
    numbers: Numbers,
    place: int,
) -> None:
    """Look up keys of any number of words, slot by slot."""
    mask = len(table) - 1
    n_words = len(keys)
    for p in range(count):
        for column in range(len(tags)):
            tag = tags[column, p]
            bucket, slot = np.uint64(tag & mask), 0
            number = table[bucket, SLOTS]
            while number > 0:
                if table[bucket, slot] == tag:
                    word = 0
                    while word < n_words and keys[word, column, p] == vertex_keys[word, number - 1]:
                        word += 1
                    if word == n_words:
                        break
                slot += 1
                if slot == SLOTS:
                    slot, bucket = 0, np.uint64((np.int64(bucket) + 1) & mask)
                number = table[bucket, SLOTS + slot]
            numbers[place] = number - 1
            place += 1


@kernel
def enter_directly(
    keys: Keys,
    count: int,
    numbers: Numbers,
    n_vertices: int,
    vertex_keys: Keys,
    direct: Numbers,
) -> Any:
    """Write the numbers of keys (1, columns, rows), row by row, and enter new keys.

    New keys get numbers from ``n_vertices`` on; returns the number of vertices afterwards. Each key
    is written to the next free place of ``vertex_keys``, new or not, so that no branch is needed;
    ``vertex_keys`` must have one place more than there will be vertices.
    """
    mask = len(direct) - 1
    row = 0
    for p in range(count):
        for column in range(keys.shape[1]):
            key = keys[0, column, p]
            place = np.uint64(key & mask)
            number = direct[place]
            vertex_keys[0, n_vertices] = key
            n_vertices += int(number == 0)
            number = np.int32(n_vertices) if number == 0 else number
            direct[place] = number
            numbers[row] = number - 1
            row += 1
    return n_vertices


@kernel
def find_directly(keys: Keys, count: int, direct: Numbers, numbers: Numbers) -> None:
    """Write the numbers of keys (1, columns, rows), row by row; -1 for keys not in the table."""
    mask = len(direct) - 1
    row = 0
    for p in range(count):
        for column in range(keys.shape[1]):
            numbers[row] = direct[np.uint64(keys[0, column, p] & mask)] - 1
            row += 1


@kernel
def enter(
    keys: Keys,
    places: Keys,
    n_keys: int,
    vertices: Numbers,
    n_vertices: int,
    vertex_keys: Keys,
    table: Keys,
) -> int:
    """Write the numbers of keys (words, rows) to ``vertices`` at ``places``, and enter new keys.

    New keys get numbers from ``n_vertices`` on, in the order of the keys. Returns the number of
    vertices afterwards.
    """
    n_words = len(keys)
    mask = len(table) - 1
    for row in range(n_keys):
        tag = _mixed(np.int64(0), keys[0, row])
        for word in range(1, n_words):
            tag = _mixed(tag, keys[word, row])
        bucket = np.uint64(tag & mask)
        number, slot = 0, 0
        while number == 0:
            other = table[bucket, SLOTS + slot]
            if other == 0:
                for word in range(n_words):
                    vertex_keys[word, n_vertices] = keys[word, row]
                n_vertices += 1
                number = n_vertices
                table[bucket, slot] = tag
                table[bucket, SLOTS + slot] = number
            elif table[bucket, slot] == tag:
                word = 0 if n_words > 1 else 1  # equal tags of one word mean equal keys
                while word < n_words and keys[word, row] == vertex_keys[word, other - 1]:
                    word += 1
                number = other if word == n_words else 0
            slot += 1
            if slot == SLOTS:
                slot, bucket = 0, np.uint64((np.int64(bucket) + 1) & mask)
        vertices[places[row]] = number - 1
    return n_vertices
