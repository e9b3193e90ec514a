"""Fixtures of the contours' kernels."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _wrapping():
    """Bits are counted and moved by whole numbers that wrap around.

    NumPy says so where nothing is compiled.
    """
    with np.errstate(over="ignore"):
        yield
