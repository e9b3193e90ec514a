import numpy as np
import pytest

from hybridseg.kernels.dense.label_gaps import label_gaps
from tests.oracles.dense import label_gaps as oracle


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 2), (700, 5)])
def test_gaps_equal_their_twin(shape, rng):
    unary = (rng.standard_normal(shape) * 9).astype(np.float32)
    np.testing.assert_array_equal(label_gaps(unary), oracle.label_gaps(unary))
    ties = np.zeros(shape, np.float32)
    np.testing.assert_array_equal(label_gaps(ties), np.zeros(shape[1]))
