"""Tables of keys equal dictionaries."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.dense import hashing as kernels
from hybridseg.kernels.dense.hashing import SLOTS
from tests.oracles.dense import hashing as oracle

#: Hashes wrap around; NumPy warns about it if the kernels are not compiled.
quiet = np.errstate(over="ignore")


def keys_of(rng, n_words, n, span=2**40):
    """Random keys (words, n); a third of the columns are repeated."""
    keys = rng.integers(-span, span, (n_words, n))
    again = rng.random(n) < 0.3
    keys[:, again] = keys[:, rng.integers(0, max(n, 1), n)][:, again]
    return keys


def in_rows(keys, n_columns):
    """The keys as (words, columns, rows), C-contiguous."""
    return np.ascontiguousarray(keys.reshape(len(keys), -1, n_columns).transpose(0, 2, 1))


def entered(keys, room):
    """Enter the keys; return their numbers, the vertex keys with their number, and the table."""
    vertex_keys, table = kernels.grow(np.empty((len(keys), 0), np.int64), 0, room)
    places, numbers = np.arange(keys.shape[1]), np.full(keys.shape[1], -9, np.int32)
    n = kernels.enter(keys, places, keys.shape[1], numbers, 0, vertex_keys, table)
    return numbers, vertex_keys, n, table


@quiet
@pytest.mark.parametrize("n_columns", [1, 5])
@pytest.mark.parametrize("n_words", [1, 2, 3])
def test_tags_equal_their_twin(n_words, n_columns, rng):
    keys = in_rows(keys_of(rng, n_words, 20), n_columns)
    keys[:, 0, 0] = 0
    tags = np.full((n_columns, keys.shape[2] + 1), 3)
    kernels.tag(keys, keys.shape[2], tags)
    np.testing.assert_array_equal(tags[:, :-1], oracle.tag(keys))
    assert (tags[:, -1] == 3).all()


@quiet
@pytest.mark.parametrize("n", [0, 1, 3, 200])
@pytest.mark.parametrize("n_words", [1, 2])
def test_keys_are_entered_and_found_as_by_a_dictionary(n_words, n, rng):
    keys, seen = keys_of(rng, n_words, n), {}
    numbers, vertex_keys, n_vertices, table = entered(keys, 256)
    assert numbers.tolist() == oracle.enter(keys, seen)
    assert n_vertices == len(seen)
    np.testing.assert_array_equal(vertex_keys[:, :n_vertices].T, [*seen] or np.empty((0, n_words)))

    asked = in_rows(np.concatenate([keys, keys + 1, keys - 1, keys * 2], axis=1), 4)
    n_rows = asked.shape[2]
    tags, lost = np.empty((4, n_rows), np.int64), np.empty(4 * n_rows + 1, np.int64)
    found = np.full(4 * n_rows + 2, -7, np.int32)
    kernels.tag(asked, n_rows, tags)
    n_lost = kernels.find(asked, tags, n_rows, vertex_keys, table, found, 1, lost)
    expected, expected_lost = oracle.find(asked, seen)
    np.testing.assert_array_equal(found[1:-1], expected)
    np.testing.assert_array_equal(lost[:n_lost], expected_lost)
    assert found[0] == found[-1] == -7


@quiet
@pytest.mark.parametrize("room", [1, 4, 256])
def test_a_larger_table_holds_what_the_smaller_one_held(room, rng):
    keys = np.unique(keys_of(rng, 2, room), axis=1)
    n = keys.shape[1]
    larger, table = kernels.grow(keys, n, room)
    held, n_slots = oracle.grow(keys, n, room)
    assert larger.shape == (2, room)
    np.testing.assert_array_equal(larger[:, :n], keys)
    assert table.size == 2 * n_slots
    tags, numbers = table[:, :SLOTS].ravel(), table[:, SLOTS:].ravel()
    taken = numbers > 0
    assert dict(zip(tags[taken].tolist(), numbers[taken].tolist(), strict=True)) == held
    first_free = (table[:, SLOTS:] > 0).sum(axis=1)  # buckets are filled from the left
    assert (taken.reshape(-1, SLOTS) == (np.arange(SLOTS) < first_free[:, np.newaxis])).all()


@pytest.mark.parametrize("n", [1, 5, 100])
def test_direct_tables_equal_a_dictionary(n, rng):
    keys = in_rows(rng.integers(1000, 1256, (1, 2 * n)), 2)
    direct, numbers = np.zeros(256, np.int32), np.empty(2 * n, np.int32)
    vertex_keys, seen = np.empty((1, 257), np.int64), {}
    n_vertices = kernels.enter_directly(keys, n, numbers, 0, vertex_keys, direct)
    assert numbers.tolist() == oracle.enter_directly(keys, seen)
    assert n_vertices == len(seen)
    np.testing.assert_array_equal(vertex_keys[:, :n_vertices].T, [*seen])
    asked = in_rows(rng.integers(1000, 1256, (1, 2 * n)), 2)
    kernels.find_directly(asked, n, direct, numbers)
    np.testing.assert_array_equal(numbers, oracle.find_directly(asked, seen))


@quiet
def test_plain_lookup_equals_the_packed_one():
    """The keys have one word, some are unknown, and the table is as full as possible."""
    rng = np.random.default_rng(5)
    known = np.unique(rng.integers(-(2**40), 2**40, 2100))[:2048]
    keys, table = kernels.grow(known[np.newaxis], len(known), len(known))
    crowded = np.ascontiguousarray(table[: len(table) // 2]) * 0  # half of the usual slots
    kernels.enter(
        known[np.newaxis], np.zeros(2048, int), 2048, np.empty(1, np.int32), 0, keys, crowded
    )
    asked = np.concatenate([known, known + 1])[rng.permutation(4096)]
    asked = np.ascontiguousarray(asked.reshape(1, 32, 128))
    tags = np.empty((32, 128), np.int64)
    kernels.tag(asked, 128, tags)
    packed, plain, lost = np.empty(4096, np.int32), np.empty(4096, np.int32), np.empty(4096, int)
    n_lost = kernels.find(asked, tags, 128, keys, crowded, packed, 0, lost)
    kernels._find_keys(asked, tags, 128, keys, crowded, plain, 0)
    np.testing.assert_array_equal(packed, plain)
    expected, expected_lost = oracle.find(asked, {(int(k),): i for i, k in enumerate(known)})
    np.testing.assert_array_equal(plain, expected)
    np.testing.assert_array_equal(lost[:n_lost], expected_lost)
