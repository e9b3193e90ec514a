"""Fixtures of the superpixels' kernels."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _wrapping():
    """Ignore overflow: bits are counted by integers that wrap around.

    NumPy warns about it if the kernels are not compiled.
    """
    with np.errstate(over="ignore"):
        yield
