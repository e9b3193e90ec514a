"""Fixtures of the dense kernels."""

import pytest

from hybridseg.kernels.vectors import simd as simd


@pytest.fixture(params=[False, True], ids=["numbers", "vectors"])
def vectors(request, monkeypatch):
    """Both ways of computing; the vectors' only where they are switched on."""
    monkeypatch.setattr(simd, "ENABLED", request.param and simd.ENABLED)
    return request.param
