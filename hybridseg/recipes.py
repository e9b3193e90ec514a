"""Values that are computed, or read from a file, when somebody asks for them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.costs import RegionCosts

if TYPE_CHECKING:
    from hybridseg.scene import Scene


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

    compute: Callable[[Scene], Any]
    scene: Scene

    def __call__(self) -> Any:
        return _RECENT.get(self)


class RecentResults:
    """The last results of recipes, within a budget of bytes, so that asking twice costs once."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: OrderedDict[int, tuple[Recipe, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, recipe: Recipe) -> Any:
        key = id(recipe)  # unique while the recipe is held here
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][1]
        value = _frozen(recipe.compute(recipe.scene))
        with self._lock:
            if value.nbytes <= self.budget:
                self._held[key] = (recipe, value)
            while sum(kept.nbytes for _, kept in self._held.values()) > self.budget:
                self._held.popitem(last=False)
        return value


def _frozen(value: Any) -> Any:
    """Nobody may write into a result that others will be handed again."""
    arrays = (value.regions, value.costs) if isinstance(value, RegionCosts) else (value,)
    for array in arrays:
        array.setflags(write=False)
    return value


_RECENT = RecentResults(budget=256 * 2**20)


class Source:
    """A field of a Scene that may hold an array, a path or a recipe, and gives the array."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.slot = "_" + name

    def __get__(self, scene: Scene | None, owner: type | None = None) -> Any:
        if scene is None:  # the dataclass decorator asks for the default
            return None
        value = resolve(scene.__dict__[self.slot])
        return value.pixels() if isinstance(value, RegionCosts) else value

    def __set__(self, scene: Scene, value: Any) -> None:
        scene.__dict__[self.slot] = value


def resolve(source: Any) -> Any:
    """Follow a recipe, read a path; anything else is already the value."""
    if isinstance(source, Recipe):
        return source()
    if isinstance(source, str | os.PathLike):
        return _read(Path(source))
    return source


def _read(path: Path) -> NDArray[Any]:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, mmap_mode="r"))
    from hybridseg.datasets.images import read_image

    return read_image(path)
