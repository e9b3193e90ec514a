"""A column is filtered by the normalized Gaussian kernels, as their matrix does it."""

import numpy as np
from scipy.spatial.distance import cdist

from hybridseg.kernels.dense.columns import filter_column
from hybridseg.kernels.dense.dense_filter import embed, tables_for


def test_a_column_is_filtered_as_by_the_kernel_matrix(rng):
    features = (np.indices((12, 14)).reshape(2, -1).T / 3).astype(np.float32)
    values = rng.random((len(features), 2)).astype(np.float32)[:, 0]  # not contiguous
    dense = embed([features, 2 * features], len(features))
    tables, out = tables_for(dense, 1), np.empty(len(features), np.float32)
    for scales in ([1.0, 0.0], [0.5, 2.0], [0.5, 2.0]):  # tables serve several calls
        expected = np.zeros(len(features))
        for scale, own in zip(scales, (features, 2 * features), strict=True):
            matrix = np.exp(-0.5 * cdist(own, own, "sqeuclidean"))
            norm = 1 / np.sqrt(matrix.sum(axis=1))
            expected += scale * norm * (matrix @ (norm * values))
        filter_column(dense, values, np.array(scales, np.float32), tables, out)
        np.testing.assert_allclose(out, expected, rtol=0.25, atol=0.02)
        assert np.corrcoef(out, expected)[0, 1] > 0.95
