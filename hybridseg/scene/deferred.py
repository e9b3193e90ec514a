"""Values that are computed, or read from a file, when somebody asks for them."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hybridseg.files.arrays import map_npy
from hybridseg.files.images import read_image
from hybridseg.scene.costs import RegionCosts


@dataclass(frozen=True, eq=False)
class Recipe:
    """A value of a Scene that is computed when somebody asks for it.

    Attributes
    ----------
    compute : callable
        ``compute(scene)`` gives the value: a bound method of a fitted estimator.
    scene : Scene
        What it is computed from.
    """

    compute: Callable[[Any], Any]
    scene: Any

    def __call__(self) -> Any:
        return _RECENT.of_recipe(self)


class RecentResults:
    """The last results of recipes and files, within a budget of bytes: asking twice costs once.

    A recipe's result is dropped with the recipe, so nothing outlives the Scenes that it is for.
    Any number of threads may ask. What two ask for at once is computed twice, and both are handed
    the same array.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()
        self._size = 0
        # A recipe may be dropped in the middle of our work, when garbage is collected: so nothing
        # here iterates over what is held, and the lock may be taken twice.
        self._lock = threading.RLock()

    def of_recipe(self, recipe: Recipe) -> Any:
        """The recipe's result, computed now or not long ago."""
        key = id(recipe)  # unique while the recipe lives, and the entry lives no longer
        guard = weakref.ref(recipe, lambda _: self._drop(key))
        return self._get(key, guard, lambda: recipe.compute(recipe.scene))

    def of_file(self, path: Path) -> Any:
        """The array in a file, read now or not long ago; a file that has changed is read anew."""
        try:
            seen = path.stat()
        except OSError:
            return _read(path)  # which says what is wrong
        key = (os.fspath(path.absolute()), seen.st_mtime_ns, seen.st_size)
        return self._get(key, None, lambda: _read(path))

    def _get(self, key: Hashable, guard: Any, compute: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][1]
        value = _frozen(compute())
        with self._lock:
            if key in self._held:  # by another thread, meanwhile
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
    """A view that nobody may write into, because others will be handed it again."""
    if isinstance(value, RegionCosts):
        return RegionCosts(_frozen(value.regions), _frozen(value.costs))
    view = value.view()
    view.setflags(write=False)
    return view


_RECENT = RecentResults(budget=256 * 2**20)


def resolve(source: Any) -> Any:
    """Follow a recipe, read a path; anything else is already the value."""
    if isinstance(source, Recipe):
        return source()
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return map_npy(path) if path.suffix == ".npy" else _RECENT.of_file(path)
    return source


def _read(path: Path) -> NDArray[Any]:
    return read_image(path)
