"""The random walker and all modes of scikit-image's, on the same seeds and weights.

Gradients without a preconditioner and with Jacobi's take scikit-image minutes on a whole image,
so they are raced on a small one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from skimage.segmentation import random_walker as peer_walker

from benchmarks.kernels.growth import grown, sizes
from benchmarks.kernels.racing import Row, Setting, peer, photo, race, size_name, threads
from hybridseg.inference import random_walker

#: Height and width of the image on which the slow modes race, and of ``quick``.
SMALL = ((120, 180), (60, 90))
FAST, SLOW = ("bf", "cg_mg"), ("bf", "cg_mg", "cg_j", "cg")


def rows(setting: Setting) -> Iterator[Row]:
    """Images at all sizes with 2 to 5 labels, another beta, volumes, and the scaling."""
    for size in setting.sizes:
        for n_labels in (3,) if setting.quick else (2, 3, 5):
            yield from _case(setting, f"coffee, {n_labels} labels", photo("coffee", size), n_labels)
    size = setting.sizes[0]
    yield from _case(setting, "camera, gray, 3 labels", photo("camera", size), 3)
    yield from _case(setting, "coffee, 3 labels, beta 600", photo("coffee", size), 3, beta=600.0)
    small = photo("coffee", SMALL[setting.quick])
    yield from _case(setting, "coffee, 3 labels", small, 3, modes=SLOW)
    for side in (24,) if setting.quick else (24, 40):
        yield from _case(setting, "volume, 3 labels", _volume(side), 3, ndim=3)
    for size in sizes(setting, most=13e6):
        yield _grown(setting, "coffee, 3 labels", photo("coffee", size), 2)
    for side in (32,) if setting.quick else (32, 64, 128):
        yield _grown(setting, "volume, 3 labels", _volume(side), 3)


def _grown(setting: Setting, case: str, image: np.ndarray, ndim: int) -> Row:
    shape = image.shape[:ndim]
    call = partial(random_walker, image, _seeds(shape, 3))
    return grown(setting, "random walker", case, shape, call)


def _volume(side: int) -> np.ndarray:
    """A gray volume: a photograph drawn along the third axis, with noise."""
    noise = np.random.default_rng(0).normal(0, 8, (side, side, side))
    slab = photo("camera", (side, side)).astype(float)
    drawn = np.stack([np.roll(slab, plane // 4, axis=1) for plane in range(side)])
    return np.clip(drawn + noise, 0, 255).astype(np.uint8)


def _seeds(shape: tuple[int, ...], n_labels: int) -> np.ndarray:
    """A square (cube) of each label, along a diagonal and off it."""
    seeds = np.full(shape, -1)
    radius = max(1, min(shape) // 60)
    for label in range(n_labels):
        across = 0.1 + 0.8 * label / max(1, n_labels - 1)
        down = 0.1 + 0.8 * (label * 0.618 % 1)
        center = [int(n * part) for n, part in zip(shape, (down, across, across), strict=False)]
        seeds[tuple(slice(max(0, c - radius), c + radius) for c in center)] = label
    return seeds


def _case(
    setting: Setting,
    case: str,
    image: np.ndarray,
    n_labels: int,
    *,
    beta: float = 130.0,
    ndim: int = 2,
    modes: Sequence[str] = FAST,
) -> Iterator[Row]:
    seeds = _seeds(image.shape[:ndim], n_labels)
    for n_threads in setting.threads:
        with threads(n_threads):
            timings = race(
                {
                    "ours": partial(random_walker, image, seeds, beta=beta),
                    **_peers(modes, image, seeds, beta),
                },
                setting.seconds,
            )
        ours = timings.pop("ours")
        exact = timings["scikit-image bf"].result
        for name, timing in timings.items():
            yield Row(
                kernel="random walker",
                case=case,
                size=size_name(seeds.shape),
                threads=n_threads,
                peer=name,
                ours_s=ours.best_s,
                peer_s=timing.best_s,
                ours_first_s=ours.first_s,
                agreement={
                    "ours_max_dp_to_bf": float(np.abs(ours.result.proba - exact).max()),
                    "peer_max_dp_to_bf": float(np.abs(timing.result - exact).max()),
                    "same_labels": float(
                        (ours.result.proba.argmax(-1) == timing.result.argmax(-1)).mean()
                    ),
                    "n_iter": ours.result.n_iter,
                },
            )


def _peers(
    modes: Sequence[str], image: np.ndarray, seeds: np.ndarray, beta: float
) -> dict[str, Callable[[], Any]]:
    if peer("pyamg") is None:
        modes = [mode for mode in modes if mode != "cg_mg"]
    return {f"scikit-image {m}": partial(_peer, m, image, seeds, beta) for m in modes}


def _peer(mode: str, image: np.ndarray, seeds: np.ndarray, beta: float) -> np.ndarray:
    """Its probabilities (*spatial, L), at its default tolerance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of UMFPACK that is missing, and of its own precision
        proba = peer_walker(
            image,
            seeds + 1,
            beta=beta,
            mode=mode,
            return_full_prob=True,
            channel_axis=-1 if image.ndim > seeds.ndim else None,
        )
    return np.moveaxis(proba, 0, -1)
