"""How the time and the memory of a kernel grow with the picture: rows of the stage "scaling"."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

from benchmarks.kernels.racing import Row, Setting, race, size_name, threads

#: Height and width of the pictures, 0.05 to 12 megapixels; the last only without ``quick``.
GROWING = ((180, 280), (400, 500), (640, 1250), (1500, 2000), (3000, 4000))


def sizes(setting: Setting) -> tuple[tuple[int, int], ...]:
    """The sizes that are asked for."""
    return GROWING[:-2] if setting.quick else GROWING


def grown(
    setting: Setting, kernel: str, case: str, size: tuple[int, ...], call: Callable[[], Any]
) -> Row:
    """Time a call on a picture (volume) of this size, and trace the most bytes that it holds."""
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
