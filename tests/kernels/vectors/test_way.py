"""Of the two ways of a kernel only the one that runs is compiled."""

import pytest
from numba import njit

from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.way import way


@pytest.mark.skipif(not simd.ENABLED, reason="vectors are switched off")
def test_plain_twins_are_not_compiled_where_vectors_are():
    @njit
    def plain(x):
        return x

    @njit
    def either(x, vectors):
        if vectors is not None:
            return x + 1
        return plain(x)

    assert either(3, way()) == 4
    assert not plain.overloads
    assert either(3, None) == 3
    assert plain.overloads


@pytest.mark.parametrize("enabled", [True, False])
def test_kernels_are_told_of_vectors_where_they_are_enabled(enabled, monkeypatch):
    monkeypatch.setattr(simd, "ENABLED", enabled)
    assert (way() is not None) == enabled
    assert way() is way()  # one value, so that nothing is compiled twice
