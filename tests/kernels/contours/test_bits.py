"""Operations on bits, 64 pixels at a time, equal the same operations on labels."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.contours import bits as kernels
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.contours.blobs import SHAPES, label_maps
from tests.oracles.contours import bits as oracles

WAYS = [True, None] if simd.ENABLED else [None]


@pytest.mark.parametrize(("shape", "flat"), SHAPES)
def test_layout_equals_its_twin(shape, flat):
    assert kernels.layout(shape) == oracles.layout(shape)


@pytest.mark.parametrize("vectors", WAYS)
@pytest.mark.parametrize(("shape", "flat"), SHAPES)
def test_labels_are_packed_and_unpacked_as_by_their_twins(shape, flat, vectors, rng):
    for labels in label_maps(shape, rng):
        labels = labels * rng.integers(1, 256, shape, np.uint8)  # every number above 0 is label 1
        words = np.zeros(oracles.layout(shape)[3], np.uint64)
        kernels.pack(labels, words, vectors)
        np.testing.assert_array_equal(words, oracles.pack(labels))
        found = np.full(shape, 9, np.uint8)
        kernels.unpack(words, found, vectors)
        np.testing.assert_array_equal(found, oracles.unpack(words, shape))
        np.testing.assert_array_equal(found, labels > 0)


@pytest.mark.parametrize("passes", [0, 1, 2, 3])
@pytest.mark.parametrize(("shape", "flat"), SHAPES)
def test_smoothing_equals_its_twin(shape, flat, passes, rng):
    for labels in label_maps(shape, rng):
        for done in (0, 1):
            words, spare = oracles.pack(labels), np.zeros(oracles.layout(shape)[3], np.uint64)
            kernels.smooth(words, spare, shape, flat, passes, done)
            expected = oracles.smooth(labels, flat, passes, done)
            np.testing.assert_array_equal(words, oracles.pack(expected))


@pytest.mark.parametrize("dilate", [False, True])
@pytest.mark.parametrize(("shape", "flat"), SHAPES)
def test_boxes_equal_their_twin(shape, flat, dilate, rng):
    for labels in label_maps(shape, rng):
        words, spare = oracles.pack(labels), np.zeros(oracles.layout(shape)[3], np.uint64)
        kernels.box(words, spare, shape, flat, dilate)
        found = oracles.unpack(spare, shape)
        np.testing.assert_array_equal(found, oracles.box(labels, flat, dilate))
        np.testing.assert_array_equal(words, oracles.pack(labels))


@pytest.mark.parametrize(("shape", "flat"), SHAPES)
def test_frontiers_equal_their_twin(shape, flat, rng):
    row, plane, margin, _ = oracles.layout(shape)
    for labels in label_maps(shape, rng):
        words = oracles.pack(labels)
        for z, y, w in np.ndindex(*shape[:2], -(-shape[2] // 64)):
            found = kernels.frontier(words, margin + z * plane + y * row + w, z, y, w, shape)
            assert int(found) == oracles.frontier(labels, z, y, w)


@pytest.mark.parametrize("word", [0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF, 0xAAAAAAAAAAAAAAAA])
def test_bits_are_counted(word):
    assert kernels.count(np.uint64(word)) == oracles.count(word)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_words_are_copied_and_compared(n, rng):
    source = rng.integers(0, 2**64, n, np.uint64)
    target = np.zeros(n, np.uint64)
    kernels.copy(source, target)
    np.testing.assert_array_equal(target, oracles.copy(source))
    assert kernels.same(source, target) == oracles.same(source, target) == True  # noqa: E712
    for k in range(n):
        target[k] ^= np.uint64(1) << np.uint64(9 * k)
        assert kernels.same(source, target) == oracles.same(source, target) == False  # noqa: E712
        target[k] = source[k]
