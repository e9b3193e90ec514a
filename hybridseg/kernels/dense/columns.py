"""One column of values, filtered with the kernels of one filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels.dense.dense_filter import DenseFilter, Tables, read_one, smooth, spread_one

Singles = NDArray[np.float32]


def filter_column(
    dense: DenseFilter, values: Singles, scales: Singles, tables: Tables, out: Singles
) -> None:
    """Spread the values of all points, smooth the lattices, and read the result.

    Parameters
    ----------
    dense : DenseFilter
    values : (n,) float32
    scales : (m,) float32
        The weight of each kernel.
    tables : Tables
        Those of :func:`tables_for` for one channel.
    out : (n,) float32, C-contiguous
        Overwritten with the result.
    """
    placed = dense.vertices, dense.weights
    spread_one(np.ascontiguousarray(values), *placed, tables.parts)
    smooth(dense, scales, tables)
    read_one(*placed, tables.table, out)
