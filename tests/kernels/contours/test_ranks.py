from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.contours.ranks import N_INTERVALS, around_rank
from tests.oracles.contours import ranks as oracle


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 3, 1000])
@pytest.mark.parametrize("kind", ["apart", "ties", "equal", "two heaps"])
def test_numbers_around_a_rank_equal_their_twin(kind, n, dtype, rng):
    values = {
        "apart": rng.random(n),
        "ties": rng.integers(0, 3, n) / 7,
        "equal": np.full(n, 0.3),
        "two heaps": np.where(rng.random(n) < 0.5, 0.0, 1.0) + 1e-5 * rng.random(n),
    }[kind].astype(dtype)
    least = values.min()
    width = values.max() - least
    scale = dtype((N_INTERVALS - 1) / width) if width else dtype(0)
    for rank in {0, n // 3, n - 2}:
        found, before = around_rank(values, least, scale, rank)
        expected, expected_before = oracle.around_rank(values, least, scale, rank)
        np.testing.assert_array_equal(found, expected)
        assert before == expected_before
        ordered = np.sort(found)
        np.testing.assert_array_equal(ordered[rank - before :][:2], np.sort(values)[rank:][:2])
