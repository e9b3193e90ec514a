"""Deferred values are computed on request, kept within a budget, and read-only."""

import gc

import numpy as np
import pytest

from hybridseg import Scene
from hybridseg.scene.costs import RegionCosts
from hybridseg.scene.deferred import Deferred, ValueCache, resolve


class Counted:
    """A computation that counts its calls."""

    def __init__(self, size=10):
        self.calls, self.size = 0, size

    def __call__(self, scene):
        self.calls += 1
        return np.full(self.size, self.calls, np.uint8)


def deferred_by(compute):
    return Deferred(compute, Scene(np.zeros((2, 3))))


def test_what_is_no_source_is_the_value():
    value = np.ones(3)
    assert resolve(value) is value
    assert resolve(None) is None


def test_values_are_computed_once_and_read_only():
    compute = Counted()
    deferred = deferred_by(compute)
    first = resolve(deferred)
    assert resolve(deferred) is first
    assert compute.calls == 1
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 9


def test_the_budget_drops_the_least_recently_used_value():
    recent = ValueCache(budget=25)
    computes = [Counted() for _ in range(3)]
    deferred_values = [deferred_by(compute) for compute in computes]
    for i in (0, 1, 0, 2, 0):  # 1 is dropped, because 0 was used later
        recent.of_deferred(deferred_values[i])
    assert [compute.calls for compute in computes] == [1, 1, 1]
    recent.of_deferred(deferred_values[1])
    assert computes[1].calls == 2
    recent.of_deferred(deferred_values[0])  # 2 was dropped, and 0 was kept
    assert computes[0].calls == 1
    recent.of_deferred(deferred_values[2])
    assert computes[2].calls == 2


@pytest.mark.parametrize(("size", "n_calls"), [(25, 1), (26, 2)])
def test_values_larger_than_the_budget_are_not_kept(size, n_calls):
    recent, compute = ValueCache(budget=25), Counted(size)
    deferred = deferred_by(compute)
    for _ in range(2):
        assert len(recent.of_deferred(deferred)) == size
    assert compute.calls == n_calls


def test_results_live_no_longer_than_their_deferred_values():
    recent = ValueCache(budget=100)
    deferred_values = [deferred_by(Counted()) for _ in range(4)]
    for deferred in deferred_values:
        recent.of_deferred(deferred)
    assert (len(recent._held), recent._size) == (4, 40)
    del deferred, deferred_values[1:]
    gc.collect()
    assert (len(recent._held), recent._size) == (1, 10)


def test_content_with_a_key_is_computed_once_and_read_only():
    compute, cache = Counted(), ValueCache(budget=15)
    first = cache.of_content(("a", 1), lambda: compute(None))
    assert cache.of_content(("a", 1), lambda: compute(None)) is first
    assert not first.flags.writeable
    assert cache.of_content(("a", 2), lambda: compute(None))[0] == 2
    assert cache.of_content(("a", 1), lambda: compute(None))[0] == 3  # the budget holds one


def test_files_are_read_anew_when_they_change(tmp_path):
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)
    first = resolve(path)
    assert resolve(str(path)) is first
    Image.fromarray(np.full((4, 6), 9, np.uint8)).save(path)
    assert resolve(path).shape == (4, 6)
    with pytest.raises(FileNotFoundError, match="absent"):
        resolve(tmp_path / "absent.png")


def test_arrays_on_disk_are_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    found = resolve(tmp_path / "a.npy")
    assert not found.flags.owndata
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 5]])


def test_costs_of_regions_stay_regions_until_pixels_are_asked_for():
    costs = RegionCosts(np.array([[0, 1]], np.int32), np.array([[1, 2], [3, 4]], np.float32))
    scene = Scene(np.zeros((1, 2)), Deferred(lambda scene: costs, Scene(np.zeros((1, 2)))))
    assert isinstance(resolve(scene.source("unary")), RegionCosts)
    np.testing.assert_array_equal(scene.unary, [[[1, 2], [3, 4]]])
