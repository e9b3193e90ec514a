"""Tables of packed keys: a hash table, and where keys lie close together one entry for each.

A key is one or more 64-bit words; keys lie in arrays whose first axis counts the words. Each key is
mixed into one word, its tag; the tags of keys of one word differ as the keys do. A bucket holds
four tags and the keys' numbers plus one (0 where it is free), together one line of the cache, and
fills from the left; a key that finds its bucket full goes to the next. At most half is ever taken.

Keys of one word that lie within a range of 2^b all differ in their lowest b bits, which then name
their entry in a direct table: there is nothing to compare, and no branch to be foretold wrongly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd

Keys = NDArray[np.int64]
Numbers = NDArray[np.int32]

#: Keys in a bucket.
SLOTS = 4

#: How many rows ahead of their turn the buckets of keys are fetched into the cache.
_EARLY = 16

#: Room up to which a table has four slots for each key, and not two: memory costs nothing there.
ROOMY = 1 << 17


def grow(vertex_keys: Keys, n_vertices: int, room: int) -> tuple[Keys, Keys]:
    """Make room for so many keys and a table of at least twice the size; enter what there is.

    NumPy makes these arrays, since it asks the system for large pages. ``room`` is a power of two.
    """
    larger = np.empty((len(vertex_keys), room), np.int64)
    slots = 4 * room if room <= ROOMY else 2 * room
    table = simd.aligned((max(1, slots // SLOTS), 2 * SLOTS), np.int64)
    places = np.zeros(n_vertices, np.int64)
    enter(vertex_keys, places, n_vertices, np.empty(1, np.int32), 0, larger, table)
    return larger, table


@kernel
def tag(keys: Keys, n_rows: int, tags: Keys) -> None:
    """Mix each key (words, columns, rows) into 64 bits, so that those of one word stay distinct."""
    n_words, n_columns, _ = keys.shape
    for column in range(n_columns):
        for p in range(n_rows):
            tags[column, p] = _mixed(np.int64(0), keys[0, column, p])
        for word in range(1, n_words):
            for p in range(n_rows):
                tags[column, p] = _mixed(tags[column, p], keys[word, column, p])


@kernel
def _mixed(tag: Any, key: Any) -> Any:
    """Fibonacci hashing: multiply by 2^64 / golden ratio, and fold the high bits down."""
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
    """Write the numbers of keys (words, columns, RUN), row by row, from ``place`` on.

    Where the table has none it is -1, and the entry's index goes to ``lost``; gives their number.
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
    """Look for keys of one word, equal where their tags are, in the buckets of their tags only.

    Lists those that are not in theirs while it is full, and gives their number. There is no
    branch at all: whether a key is there is hard to foretell.
    """
    mask = len(table) - 1
    zeros = simd.fill(np.int64(0), SLOTS)
    n_far, row = np.int64(0), 0
    for p in range(count):
        later = min(p + _EARLY, count - 1)
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
    """Look for keys of one word in the buckets after theirs."""
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
    """Number keys (1, columns, rows), row by row, new ones from ``n_vertices`` on.

    ``vertex_keys`` needs room for one more than there will be.
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
    """Write the numbers of keys (1, columns, rows), row by row; -1 where there is none."""
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
    """Number the keys in their order, new ones from ``n_vertices`` on, and write at the places."""
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
                word = 0 if n_words > 1 else 1  # one word is known by its tag
                while word < n_words and keys[word, row] == vertex_keys[word, other - 1]:
                    word += 1
                number = other if word == n_words else 0
            slot += 1
            if slot == SLOTS:
                slot, bucket = 0, np.uint64((np.int64(bucket) + 1) & mask)
        vertices[places[row]] = number - 1
    return n_vertices
