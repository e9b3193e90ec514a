"""Eight threads at once, and the state that a prediction must not change."""

import random
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np

N_THREADS = 8


def at_once(work, n_threads=N_THREADS):
    """The results of ``work(number)`` in several threads that start together."""
    barrier, interval = threading.Barrier(n_threads), sys.getswitchinterval()

    def wait_and_work(number):
        barrier.wait()
        return work(number)

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            return list(pool.map(wait_and_work, range(n_threads)))
    finally:
        sys.setswitchinterval(interval)


def surroundings():
    """The settings and generators of the process that a prediction could change."""
    known = {
        "numpy": joblib.hash(np.random.get_state()),  # noqa: NPY002
        "python": hash(random.getstate()),
        "warnings": list(warnings.filters),
        "errors": np.geterr(),
    }
    if "numba" in sys.modules:
        known["numba"] = sys.modules["numba"].get_num_threads()
    if "torch" in sys.modules:
        known |= _of_torch(sys.modules["torch"])
    return known


def _of_torch(torch):
    return {
        "torch": joblib.hash(torch.get_rng_state().numpy()),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
    }


def contents(model):
    """A checksum of an estimator's attributes, including its networks and their modes."""
    return joblib.hash(model)
