"""Fixtures of the cuts' kernels."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _wrapping():
    """Nodes of a grid are numbered and bits taken by whole numbers that wrap around.

    NumPy says so where nothing is compiled.
    """
    with np.errstate(over="ignore"):
        yield
