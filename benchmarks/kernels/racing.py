"""Shared parts of the kernels' benchmarks: photographs, races, and rows of tables.

A race calls all contenders once (the first call, in which kernels compile or load, is reported
separately), and then alternately many times, so that other work of the machine affects all alike.
The minimum time of each counts. Every contender runs in this process.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import numba
import numpy as np
from skimage import data
from skimage.transform import resize

#: A peer whose first call takes this multiple of a race's seconds is not called again.
_PATIENCE = 4

#: The number of integer steps in a cost of 1, for cuts of integers.
UNIT = 1000

#: Height and width of the images, in pixels: BSDS500's, VGA, and 1.7 megapixels.
SIZES = ((321, 481), (480, 640), (1080, 1620))


@dataclass(frozen=True)
class Setting:
    """The options of the command line."""

    sizes: tuple[tuple[int, int], ...] = SIZES
    threads: tuple[int, ...] = (1, 2)
    seconds: float = 4.0  # how long a contender is called over and over
    quick: bool = False  # leave out what takes a peer minutes


@dataclass(frozen=True)
class Row:
    """One comparison: ours and one peer on one problem.

    Attributes
    ----------
    kernel, case : str
        The computation; ``case`` names the image and the parameters.
    size : str
        As in "481x321".
    threads : int
        The number of threads of ours, and of peers that accept a number.
    peer : str
    ours_s, peer_s : float
        Seconds; ``peer_s`` is NaN where there is no peer.
    ours_first_s : float
        Our first call in this process, with whatever the compile cache held.
    stage : str
        "all", or "build", "solve", "iterate".
    agreement : dict
        How closely the results agree, by name.
    """

    kernel: str
    case: str
    size: str
    threads: int
    peer: str
    ours_s: float
    peer_s: float
    ours_first_s: float = float("nan")
    stage: str = "all"
    agreement: Mapping[str, float | int | bool] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The peer's time over ours: above one, ours is faster."""
        return self.peer_s / self.ours_s

    def as_record(self) -> dict[str, Any]:
        """Return the row for a JSON file."""
        return asdict(self) | {"ratio": self.ratio}


@dataclass(frozen=True)
class Timing:
    """The times of one contender in a race."""

    first_s: float
    best_s: float
    n_calls: int
    result: Any


def race(contenders: Mapping[str, Callable[[], Any]], seconds: float = 4.0) -> dict[str, Timing]:
    """Time the contenders in turns until each had its ``seconds``, or three calls if that is more.

    A contender whose single call takes longer than ``seconds`` is called once more and no further.
    A peer, which has nothing to compile, is not even called again if its first call took
    ``_PATIENCE`` times that; peers are all but the first and those with "ours" in their names.
    """
    first: dict[str, tuple[float, Any]] = {}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for name, call in contenders.items():
        first[name] = _timed(call)
    waiting = dict(contenders)
    for name, (first_s, _) in list(first.items())[1:]:
        if first_s > _PATIENCE * seconds and "ours" not in name:
            times[name].append(first_s)
            del waiting[name]
    while waiting:
        for name, call in list(waiting.items()):
            taken = times[name]
            taken.append(_timed(call)[0])
            if sum(taken) >= seconds and (len(taken) >= 3 or taken[0] >= seconds):
                del waiting[name]
    return {
        name: Timing(first[name][0], min(taken), len(taken), first[name][1])
        for name, taken in times.items()
    }


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


@contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Let our kernels and OpenCV use ``n_threads`` threads."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    opencv = peer("cv2")
    if opencv is not None:
        opencv.setNumThreads(n_threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@cache
def peer(module: str) -> ModuleType | None:
    """Import a peer's module, or print once that it is not installed and return None."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        print(f"# {module} is left out: {error}")
        return None


@cache
def photo(name: str, size: tuple[int, int]) -> np.ndarray:
    """A photograph of scikit-image as uint8 (H, W, 3) or (H, W), cropped to shape and scaled."""
    image = getattr(data, name)()[..., :3] if name not in GRAY else getattr(data, name)()
    height, width = size
    tall = min(image.shape[0], image.shape[1] * height // width)
    wide = min(image.shape[1], image.shape[0] * width // height)
    top, left = (image.shape[0] - tall) // 2, (image.shape[1] - wide) // 2
    crop = image[top : top + tall, left : left + wide]
    scaled = resize(crop, size, order=1, anti_aliasing=tall > height)
    return np.ascontiguousarray((scaled * 255).round().astype(np.uint8))


GRAY = frozenset({"camera", "coins", "moon", "page", "clock", "brick", "grass", "gravel"})


def size_name(size: tuple[int, ...]) -> str:
    """481x321 for the shape (321, 481)."""
    return "x".join(str(n) for n in size[::-1])


def soft_costs(image: np.ndarray, n_labels: int, noise: float = 0.7, seed: int = 0) -> np.ndarray:
    """Costs (H, W, L), float32, as an uncertain classifier of the gray value would give.

    Each label is a band of gray; the cost of a label grows with the distance of the smoothed gray
    value from its band, and Gumbel noise of the given scale is added. ``noise=0.7`` leaves about a
    third of the pixels with another least label than their band's.
    """
    gray = image.astype(np.float32)
    gray = gray.mean(axis=-1) if gray.ndim == 3 else gray
    ranks = gray.ravel().argsort().argsort().reshape(gray.shape) / gray.size * n_labels
    distance = np.abs(ranks[..., np.newaxis] - (np.arange(n_labels) + 0.5))
    costs = np.minimum(distance, 3.0) * 0.8
    random = np.random.default_rng(seed)
    return (costs - noise * random.gumbel(size=costs.shape)).astype(np.float32)


def whole(costs: np.ndarray) -> np.ndarray:
    """Return costs as integers, in thousandths."""
    return np.rint(np.asarray(costs, np.float64) * UNIT).astype(np.int64)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the softmax along the last axis."""
    raised: np.ndarray = np.exp(scores - scores.max(axis=-1, keepdims=True))
    raised /= raised.sum(axis=-1, keepdims=True)
    return raised
