"""Python code decides whether kernels may use vectors."""

import pytest

from hybridseg.kernels.vectors import simd
from hybridseg.kernels.vectors.way import way


@pytest.mark.parametrize("enabled", [True, False])
def test_kernels_are_told_of_vectors_where_they_are_enabled(enabled, monkeypatch):
    monkeypatch.setattr(simd, "ENABLED", enabled)
    assert (way() is not None) == enabled
    assert way() is way()  # one value, so that no kernel is compiled twice
