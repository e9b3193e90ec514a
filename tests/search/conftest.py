"""A clock for searches that only stubs advance."""

import pytest

from hybridseg import AutoHybrid
from tests.search.stubs import HANDS


@pytest.fixture
def hands(monkeypatch):
    HANDS.time = 0.0
    monkeypatch.setattr(AutoHybrid, "_now", staticmethod(HANDS))
    return HANDS
