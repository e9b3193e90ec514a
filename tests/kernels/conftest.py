"""Select the cases that run if kernels are not compiled, or are compiled without vectors.

Uncompiled kernels take hundreds of times as long, and a build without vectors must compile again.
Then each test runs evenly spaced cases, including the first and the last. Without vectors, only
the tests of files that use vectors run, because the other kernels do not change.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
from numba import config

import hybridseg
from hybridseg.kernels.vectors import simd as simd

TESTS = Path(__file__).parent
KERNELS = Path(hybridseg.__file__).parent / "kernels"
#: The largest number of cases of one test.
MOST_UNCOMPILED, MOST_WITHOUT_VECTORS = 12, 6


def uses_vectors(test):
    """Whether the kernels of a test file have a vector path."""
    source = KERNELS / test.parent.name / test.name.removeprefix("test_")
    return not source.exists() or "import simd" in source.read_text()


def pytest_collection_modifyitems(items):
    if simd.ENABLED:
        return
    most = MOST_UNCOMPILED if config.DISABLE_JIT else MOST_WITHOUT_VECTORS
    kept = []
    for path, group in groupby(
        items, key=lambda item: (item.path, getattr(item, "originalname", ""))
    ):
        cases = list(group)
        is_ours = "kernels" in path[0].parts
        if is_ours and not config.DISABLE_JIT and not uses_vectors(path[0]):
            continue
        if is_ours and len(cases) > most:
            cases = [cases[k * (len(cases) - 1) // (most - 1)] for k in range(most)]
        kept.extend(cases)
    items[:] = kept
    if config.DISABLE_JIT:
        skip = pytest.mark.skip(reason="would take too long where nothing is compiled")
        for item in items:
            if item.get_closest_marker("compiled"):
                item.add_marker(skip)
