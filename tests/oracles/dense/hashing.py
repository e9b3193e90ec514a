"""Numbers of keys by a dictionary; keys are arrays (words, n) or (words, columns, rows)."""

from __future__ import annotations

import numpy as np

from hybridseg.kernels.dense.hashing import MAX_KEYS_WITH_FOUR_SLOTS
from tests.oracles.dense.simplices import in_64_bits


def in_turn(keys):
    """The keys as tuples of words, row by row, and within a row column by column."""
    if keys.ndim == 3:
        keys = keys.transpose(0, 2, 1).reshape(len(keys), -1)
    return [tuple(map(int, key)) for key in keys.T]


def tag_of(words):
    """One word from all words, mixed by multiplications with 2^64 / golden ratio."""
    found = 0
    for word in words:
        mixed = (found ^ word) * 0x9E3779B97F4A7C15 % 2**64
        found = in_64_bits(mixed ^ mixed >> 32)
    return found


def tag(keys):
    """The tags (columns, rows) of keys."""
    tags = [tag_of(words) for words in in_turn(keys)]
    return np.reshape(tags, (keys.shape[2], keys.shape[1])).T


def grow(vertex_keys, n_vertices, room):
    """The content {tag: number + 1} of the table, and its number of slots."""
    held = {tag_of(words): i + 1 for i, words in enumerate(in_turn(vertex_keys[:, :n_vertices]))}
    return held, 4 * room if room <= MAX_KEYS_WITH_FOUR_SLOTS else 2 * room


def enter(keys, seen):
    """The numbers of keys; new keys get the next numbers and join ``seen`` {key: number}."""
    return [seen.setdefault(words, len(seen)) for words in in_turn(keys)]


def find(keys, seen):
    """The numbers of keys, -1 for unknown keys, and the indices of unknown keys."""
    numbers = np.array([seen.get(words, -1) for words in in_turn(keys)])
    return numbers, np.flatnonzero(numbers < 0)


def enter_directly(keys, seen):
    return enter(keys, seen)


def find_directly(keys, seen):
    return find(keys, seen)[0]
