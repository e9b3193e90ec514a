"""Maps that are kept for the next call."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hybridseg.deep import kept_maps  # noqa: E402
from hybridseg.deep.kept_maps import kept_map  # noqa: E402
from hybridseg.scene.deferred import ValueCache  # noqa: E402


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(kept_maps, "_CACHE", ValueCache(budget=100))
    calls = []

    def compute():
        calls.append(1)
        return np.full((2, 3), len(calls), np.float32)

    return compute, calls


def test_equal_images_and_settings_are_computed_once(counted):
    compute, calls = counted
    colors = np.random.default_rng(0).random((2, 3, 1)).astype(np.float32)
    first = kept_map("a", colors, compute)
    first[:] = 9  # a copy
    np.testing.assert_array_equal(kept_map("a", colors.copy(), compute), np.ones((2, 3)))
    read_only = colors.copy()
    read_only.setflags(write=False)
    np.testing.assert_array_equal(kept_map("a", read_only[::1], compute), np.ones((2, 3)))
    assert len(calls) == 1


def test_other_values_shapes_and_settings_are_computed_anew(counted):
    compute, calls = counted
    colors = np.zeros((2, 3, 1), np.float32)
    others = [colors, np.ones_like(colors), colors.reshape(3, 2, 1), colors.transpose(1, 0, 2)]
    found = [kept_map("a", other, compute)[0, 0] for other in others]
    assert found == [1, 2, 3, 3]
    assert kept_map("b", colors, compute)[0, 0] == 4
    assert len(calls) == 4


def test_the_oldest_maps_make_room(counted):
    compute, calls = counted
    images = [np.full((2, 3, 1), i, np.float32) for i in range(5)]  # four maps of 24 bytes fit
    for image in images:
        kept_map("a", image, compute)
    kept_map("a", images[4], compute)
    assert len(calls) == 5
    kept_map("a", images[0], compute)
    assert len(calls) == 6
