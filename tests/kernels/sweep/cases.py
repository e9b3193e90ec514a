"""The shape of a case of the sweep, and the cases of a family."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

#: All short widths, and widths near multiples of the size of a vector.
WIDTHS = sorted(
    {*range(1, 141)}
    | {8 * k + d for k in range(17, 88) for d in (-1, 0, 1) if k % 4 == 0 or d == k % 3 - 1}
    | {64 * k + d for k in range(2, 11) for d in range(-6, 3)}
)
HEIGHTS = (1, 2, 3, 4, 5, 33)
LABELS = (*range(1, 10), *range(15, 18), *range(31, 34))
CHANNELS = range(1, 9)
#: The largest number of pixels of a case; larger cases get fewer rows.
_MOST = 24_000
#: The number of cases that the report of a failing family names.
_NAMED = 5


@dataclass(frozen=True)
class Shape:
    """The sizes and settings of one case."""

    width: int
    height: int
    depth: int  # 0 for an image
    n_labels: int
    n_channels: int
    masked: bool
    n_threads: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        most = max(1, _MOST // (self.width * max(1, self.depth)))
        plane = (min(self.height, most), self.width)
        return (self.depth, *plane) if self.depth else plane

    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def image(self, *, n_channels: int | None = None) -> Any:
        channels = self.n_channels if n_channels is None else n_channels
        smooth = np.cumsum(self.random().normal(0, 9, (*self.shape, channels)), axis=-2)
        return np.abs(smooth % 510 - 255).astype(np.uint8)

    def valid(self) -> Any:
        """A mask with at least one pixel inside, or None."""
        if not self.masked:
            return None
        inside = self.random().random(self.shape) < 0.8
        inside.flat[inside.size // 2] = True
        return inside

    def costs(self, n_labels: int | None = None) -> Any:
        n = self.n_labels if n_labels is None else n_labels
        return self.random().integers(0, 400, (*self.shape, n)) / 100

    def seeds(self, n_labels: int) -> Any:
        """Seeds: some pixels of each label, and -1 elsewhere."""
        found = np.full(self.shape, -1)
        places = self.random().permutation(found.size)[: max(1, found.size // 6)]
        found.flat[places] = np.arange(len(places)) % n_labels
        return found


Run = Callable[[Shape], Any]


@dataclass(frozen=True)
class Family:
    """A function that calls kernels. ``atol`` is None if vectors and plain loops agree exactly.

    The family uses one of ``share`` widths; without vectors, kernels have nothing to compare with.
    """

    run: Run
    atol: float | None = None
    rtol: float = 1e-4
    volumes: bool = True
    share: int = 1
    shapes: Callable[[Family, str], Iterator[Shape]] | None = None


FAMILIES: dict[str, Family] = {}


def family(**options: Any) -> Callable[[Run], Run]:
    def keep(run: Run) -> Run:
        FAMILIES[run.__name__] = Family(run, **options)
        return run

    return keep


def shapes_of(kind: Family, name: str) -> Iterator[Shape]:
    """Cases with every width once; all other settings occur equally often, in random order."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    widths = WIDTHS[zlib.crc32(name.encode()) % kind.share :: kind.share]
    depths = (0, 0, 1, 2, 3) if kind.volumes else (0,)
    kinds = (HEIGHTS, depths, LABELS, CHANNELS, (False, True), (1, 2))
    columns = [random.permutation(np.resize(np.array(values), len(widths))) for values in kinds]
    for seed, (width, *rest) in enumerate(zip(widths, *columns, strict=True)):
        height, depth, n_labels, n_channels, masked, n_threads = map(int, rest)
        yield Shape(width, height, depth, n_labels, n_channels, bool(masked), n_threads, seed)


def short_rows(kind: Family, name: str) -> Iterator[Shape]:
    """Cases with every number of labels, and every number of points up to two chunks plus one."""
    for n_labels in LABELS:
        for width in range(1, 66):
            yield Shape(width, 1, 0, n_labels, 1, False, 1 + width % 2, width)
