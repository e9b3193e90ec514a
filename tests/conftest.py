"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def data_dir():
    """The directory of real data sets; without it, the tests that need it are skipped."""
    directory = os.environ.get("HYBRIDSEG_DATA")
    if not directory:
        pytest.skip("HYBRIDSEG_DATA does not name a directory of real data sets")
    return Path(directory)


@pytest.fixture(scope="module")
def one_torch_thread():
    """Run with one thread, because two threads beside a busy process are slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
