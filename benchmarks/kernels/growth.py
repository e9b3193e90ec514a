"""How the time and the memory of a kernel grow with the image: rows of the stage "scaling"."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.kernels.racing import Row, Setting, photo, race, size_name, threads

#: Height and width of the images, 0.05 to 48 megapixels; above 3, copies stand side by side.
GROWING = ((180, 280), (400, 500), (800, 1000), (1500, 2000), (3000, 4000), (6000, 8000))
_WHOLE = 4_000_000


def sizes(setting: Setting, most: float = 50e6) -> list[tuple[int, int]]:
    """The sizes of up to ``most`` pixels; the last two only without ``quick``."""
    asked = GROWING[:-2] if setting.quick else GROWING
    return [size for size in asked if size[0] * size[1] <= most]


def photograph(size: tuple[int, int]) -> np.ndarray:
    """The coffee photograph (H, W, 3), or smaller copies of it side by side."""
    n_tiles = 1
    while size[0] * size[1] > _WHOLE * n_tiles**2:
        n_tiles *= 2
    return np.tile(photo("coffee", (size[0] // n_tiles, size[1] // n_tiles)), (n_tiles, n_tiles, 1))


def grown(
    setting: Setting, kernel: str, case: str, size: tuple[int, ...], call: Callable[[], Any]
) -> Row:
    """Time a call on an image (volume) of this size, and trace the most bytes that it holds."""
    n_pixels = 1
    for n in size:
        n_pixels *= n
    n_threads = max(setting.threads)
    with threads(n_threads):
        timing = race({"ours": call}, setting.seconds)["ours"]
        tracemalloc.start()
        call()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return Row(
        kernel=kernel,
        case=case,
        size=size_name(size),
        threads=n_threads,
        peer="none",
        ours_s=timing.best_s,
        peer_s=float("nan"),
        ours_first_s=timing.first_s,
        stage="scaling",
        agreement={
            "megapixels": n_pixels / 1e6,
            "ns per pixel": timing.best_s / n_pixels * 1e9,
            "bytes_per_pixel": most / n_pixels,
        },
    )
