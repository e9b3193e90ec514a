"""Deferred values: computed, or read from a file, on access; a cache holds recent ones."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridseg.files.arrays import map_npy
from hybridseg.files.images import read_image
from hybridseg.scene.costs import RegionCosts


@dataclass(frozen=True, eq=False)
class Deferred:
    """A value of a Scene that is computed on access.

    Attributes
    ----------
    compute : callable
        ``compute(scene)`` returns the value; a bound method of a fitted estimator.
    scene : Scene
        The Scene that ``compute`` takes.
    """

    compute: Callable[[Any], Any]
    scene: Any

    def __call__(self) -> Any:
        return _CACHE.of_deferred(self)


class ValueCache:
    """A cache of deferred values and of arrays from files, least recently used out first.

    The result of a deferred value is dropped when the deferred value is garbage collected, so the
    result does not outlive its Scenes. Threads may share the cache: if two threads ask for one
    value at once, it is computed twice, but both get the same array.

    Parameters
    ----------
    budget : int
        The maximum size of all cached values together, in bytes. A larger value is not cached.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()
        self._size = 0
        # The garbage collector may call _drop while this thread is in _get. So the lock is
        # reentrant, and no method iterates over the entries.
        self._lock = threading.RLock()

    def of_deferred(self, deferred: Deferred) -> Any:
        """Return the result of a deferred value, from the cache or computed now."""
        key = id(deferred)  # unique while the value lives, and the entry lives no longer
        guard = weakref.ref(deferred, lambda _: self._drop(key))
        return self._get(key, guard, lambda: deferred.compute(deferred.scene))

    def of_file(self, path: Path) -> Any:
        """Return the array in a file, from the cache or read now; a changed file is read again."""
        try:
            seen = path.stat()
        except OSError:
            return read_image(path)  # raises the error that says what is wrong
        key = (os.fspath(path.absolute()), seen.st_mtime_ns, seen.st_size)
        return self._get(key, None, lambda: read_image(path))

    def of_content(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the array that belongs to a key, from the cache or computed now, read-only.

        The key must describe all that the array depends on, because no entry is checked again.
        """
        return self._get(key, None, compute)

    def _get(self, key: Hashable, guard: Any, compute: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][1]
        value = _frozen(compute())
        with self._lock:
            if key in self._held:  # another thread was faster
                return self._held[key][1]
            if value.nbytes <= self.budget:
                self._held[key] = (guard, value)
                self._size += value.nbytes
            while self._size > self.budget:
                self._size -= self._held.popitem(last=False)[1][1].nbytes
        return value

    def _drop(self, key: Hashable) -> None:
        with self._lock:
            _, dropped = self._held.pop(key, (None, None))
            self._size -= 0 if dropped is None else dropped.nbytes


def _frozen(value: Any) -> Any:
    """Return a read-only view, because later callers get the same array."""
    if isinstance(value, RegionCosts):
        return RegionCosts(_frozen(value.regions), _frozen(value.costs))
    view = value.view()
    view.setflags(write=False)
    return view


_CACHE = ValueCache(budget=256 * 2**20)


def resolve(source: Any) -> Any:
    """Return the value of a source: a deferred value, a path to read, or the value itself."""
    if isinstance(source, Deferred):
        return source()
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return map_npy(path) if path.suffix == ".npy" else _CACHE.of_file(path)
    return source
