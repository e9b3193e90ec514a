"""Fixtures for all tests of networks."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded_on_one_thread():
    """Use one seed, and one thread, because two threads beside a busy process are slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        yield
    torch.set_num_threads(threads)
