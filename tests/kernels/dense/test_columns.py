"""A column is filtered as plain loops do it, and nearly as the matrix of the kernels does it."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from hybridseg.kernels.dense.columns import filter_column
from hybridseg.kernels.dense.dense_filter import embed, tables_for
from tests.oracles.dense import columns as oracle


@pytest.mark.parametrize("shape", [(12, 14), (1, 5), (1, 1)])
def test_a_column_is_filtered_as_by_plain_loops(shape, rng):
    features = (np.indices(shape).reshape(2, -1).T / 3).astype(np.float32)
    values = rng.random((len(features), 2)).astype(np.float32)[:, 0]  # not contiguous
    dense = embed([features, 2 * features], len(features))
    tables, out = tables_for(dense, 1), np.empty(len(features), np.float32)
    for scales in ([1.0, 0.0], [0.5, 2.0], [0.5, 2.0]):  # tables serve several calls
        scale = np.array(scales, np.float32)
        filter_column(dense, values, scale, tables, out)
        np.testing.assert_allclose(
            out, oracle.filter_column(dense, values, scale), rtol=1e-4, atol=1e-5
        )


def test_the_result_is_nearly_that_of_the_kernel_matrix(rng):
    features = (np.indices((12, 14)).reshape(2, -1).T / 3).astype(np.float32)
    values = rng.random(len(features)).astype(np.float32)
    matrix = np.exp(-0.5 * cdist(features, features, "sqeuclidean"))
    norm = 1 / np.sqrt(matrix.sum(axis=1))
    dense, out = embed([features], len(features)), np.empty(len(features), np.float32)
    filter_column(dense, values, np.ones(1, np.float32), tables_for(dense, 1), out)
    np.testing.assert_allclose(out, norm * (matrix @ (norm * values)), rtol=0.25, atol=0.02)
