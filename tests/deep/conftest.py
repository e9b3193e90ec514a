"""Fixtures for the tests of segmenters."""

import pytest


@pytest.fixture(scope="module")
def one_torch_thread():
    """One thread, because two beside a busy process are slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
