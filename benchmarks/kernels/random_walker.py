"""The random walker beside every mode of scikit-image's, on the same seeds and weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from skimage.segmentation import random_walker as peer_walker

from benchmarks.kernels.racing import Row, Setting, peer, picture, race, size_name, threads
from hybridseg.inference import random_walker

#: From this many pixels on, Jacobi-preconditioned gradients take scikit-image minutes a call.
SMALL = 200_000


def rows(setting: Setting) -> Iterator[Row]:
    """Pictures at all sizes with 2 to 5 labels, another beta, and a volume."""
    for size in setting.sizes:
        for n_labels in (3,) if setting.quick else (2, 3, 5):
            yield from _case(
                setting, f"coffee, {n_labels} labels", picture("coffee", size), n_labels
            )
    size = setting.sizes[0]
    yield from _case(setting, "camera, grey, 3 labels", picture("camera", size), 3)
    yield from _case(setting, "coffee, 3 labels, beta 600", picture("coffee", size), 3, beta=600.0)
    yield from _case(setting, "volume, 3 labels", _volume(32 if setting.quick else 64), 3, ndim=3)


def _volume(side: int) -> np.ndarray:
    """A grey volume: a photograph drawn along the third axis, with noise."""
    noise = np.random.default_rng(0).normal(0, 8, (side, side, side))
    slab = picture("camera", (side, side)).astype(float)
    drawn = np.stack([np.roll(slab, plane // 4, axis=1) for plane in range(side)])
    return np.clip(drawn + noise, 0, 255).astype(np.uint8)


def _seeds(shape: tuple[int, ...], n_labels: int) -> np.ndarray:
    """A square (cube) of each label, along a diagonal and off it."""
    seeds = np.full(shape, -1)
    radius = max(1, min(shape) // 60)
    for label in range(n_labels):
        across = 0.1 + 0.8 * label / max(1, n_labels - 1)
        down = 0.1 + 0.8 * (label * 0.618 % 1)
        centre = [int(n * part) for n, part in zip(shape, (down, across, across), strict=False)]
        seeds[tuple(slice(max(0, c - radius), c + radius) for c in centre)] = label
    return seeds


def _case(
    setting: Setting,
    case: str,
    image: np.ndarray,
    n_labels: int,
    *,
    beta: float = 130.0,
    ndim: int = 2,
) -> Iterator[Row]:
    seeds = _seeds(image.shape[:ndim], n_labels)
    for n_threads in setting.threads:
        with threads(n_threads):
            timings = race(
                {
                    "ours": partial(random_walker, image, seeds, beta=beta),
                    **_peers(setting, image, seeds, beta),
                },
                setting.seconds,
            )
        ours = timings.pop("ours")
        exact = timings["scikit-image bf"].result
        for name, timing in timings.items():
            yield Row(
                kernel="random_walker",
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
    setting: Setting, image: np.ndarray, seeds: np.ndarray, beta: float
) -> dict[str, Callable[[], Any]]:
    modes = ["bf"]
    if peer("pyamg") is not None:
        modes.append("cg_mg")
    if seeds.size < SMALL and not setting.quick:
        modes += ["cg_j", "cg"]
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
