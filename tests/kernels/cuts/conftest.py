"""Fixtures of the cuts' kernels."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _wrapping():
    """Ignore overflow: the integers that number nodes and select bits wrap around.

    NumPy warns about it if the kernels are not compiled.
    """
    with np.errstate(over="ignore"):
        yield
