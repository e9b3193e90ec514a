"""Which cases run where kernels are not compiled, or without vectors.

Uncompiled kernels take hundreds of times as long, and a build without vectors compiles anew. There
each test runs a part of its cases, from the first to the last, at equal distances.
"""

from __future__ import annotations

from itertools import groupby

import pytest
from numba import config

from hybridseg.kernels.vectors import simd as simd

#: Of one test, this many cases.
MOST_UNCOMPILED, MOST_WITHOUT_VECTORS = 12, 40


def pytest_collection_modifyitems(items):
    if simd.ENABLED:
        return
    most = MOST_UNCOMPILED if config.DISABLE_JIT else MOST_WITHOUT_VECTORS
    kept = []
    for path, group in groupby(items, lambda item: (item.path, getattr(item, "originalname", ""))):
        cases = list(group)
        if "kernels" in path[0].parts and len(cases) > most:
            cases = [cases[k * (len(cases) - 1) // (most - 1)] for k in range(most)]
        kept.extend(cases)
    items[:] = kept
    if config.DISABLE_JIT:
        skip = pytest.mark.skip(reason="would take too long where nothing is compiled")
        for item in items:
            if item.get_closest_marker("compiled"):
                item.add_marker(skip)
