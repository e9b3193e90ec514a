"""Fixtures of the dense kernels."""

import pytest

from hybridseg.kernels.vectors import simd as simd


@pytest.fixture(params=[False, True], ids=["numbers", "vectors"])
def vectors(request, monkeypatch):
    """Without explicit vectors, and with them if they are switched on."""
    monkeypatch.setattr(simd, "ENABLED", request.param and simd.ENABLED)
    return request.param
