from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.contours.sums import sum_word
from hybridseg.kernels.vectors import simd as simd
from tests.oracles.contours import sums as oracle


@pytest.mark.parametrize("word", [0, 2**64 - 1, 0x123456789ABCDEF0])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 63, 64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_a_word_equal_their_twin_and_do_not_depend_on_vectors(dtype, n, word, rng):
    values = (rng.random(80) * 10 ** rng.uniform(0, 6, 80)).astype(dtype)
    parts, first = np.full(16, np.nan), 80 - n
    plain = sum_word(values, first, n, np.uint64(word), None, parts)
    assert plain == pytest.approx(oracle.sum_word(values, first, n, word), rel=1e-14)
    if simd.ENABLED:
        assert sum_word(values, first, n, np.uint64(word), True, parts) == plain
