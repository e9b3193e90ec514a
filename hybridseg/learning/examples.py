"""What models learn from, image by image, and what learning by a maximum margin needs of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.learning.max_margin import Oracle

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Example:
    """An image, or a window of it, to learn from.

    Attributes
    ----------
    costs : ndarray of float32, (n, L)
        The costs of its n valid pixels.
    truth : ndarray of int64, (n,)
        Their true label indices, -1 where unknown.
    blocks : ndarray of int64, (n,)
        The block of each pixel, if a single image is divided into folds; else all 0.
    given : Any
        What the model needs besides.
    """

    costs: Singles
    truth: Longs
    blocks: Longs
    given: Any

    @cached_property
    def cheapest(self) -> NDArray[np.intp]:
        """The cheapest label of each pixel, (n,)."""
        found: NDArray[np.intp] = self.costs.argmin(axis=1)
        return found

    @property
    def nbytes(self) -> int:
        """The size in bytes, with that of ``given``."""
        own = self.costs.nbytes + self.truth.nbytes + self.blocks.nbytes
        return int(own + getattr(self.given, "nbytes", 0))


@dataclass(frozen=True)
class Part:
    """An image, or some blocks of it."""

    position: int
    blocks: tuple[int, ...] | None

    def truth(self, example: Example) -> Longs:
        """Return the truth of this part, -1 elsewhere."""
        if self.blocks is None:
            return example.truth
        return np.where(np.isin(example.blocks, self.blocks), example.truth, -1)


class MarginModel(ABC):
    """A model whose energy is linear in its parameters (P,): it is learned by a maximum margin.

    Attributes
    ----------
    center : ndarray of float, (P,)
        The start, to which the penalty pulls.
    lower : ndarray of float, (P,)
        The smallest value of each parameter; -inf without a bound.
    example : callable
        ``example(position, whole)`` reads a window of an image and its truth, or, to judge, the
        whole image.
    """

    center: Doubles
    lower: Doubles
    example: Callable[[int, bool], Example]

    @abstractmethod
    def oracle(self, example: Example, truth: Longs, class_weight: Doubles) -> Oracle:
        """Return the oracle of an example with these true labels (n,), -1 where unknown."""

    @abstractmethod
    def predict(self, point: Doubles, example: Example) -> NDArray[np.integer[Any]]:
        """Return the label indices (n,) of an example."""

    @abstractmethod
    def weakened(self, point: Doubles, strength: float) -> Doubles:
        """Return the point at a strength of 0, which changes nothing, to 1, which is the point."""

    @abstractmethod
    def values(self, point: Doubles) -> dict[str, Any]:
        """Return the parameters by name."""
