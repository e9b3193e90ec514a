"""Fixtures of the Laplacian's kernels."""

import pytest

from hybridseg.kernels.vectors import simd as simd

#: Without explicit vectors and, unless they are switched off, with them.
WAYS = sorted({False, simd.ENABLED})


@pytest.fixture(params=WAYS, ids=lambda way: "vectors" if way else "numbers")
def way(request, monkeypatch):
    monkeypatch.setattr(simd, "ENABLED", request.param)
