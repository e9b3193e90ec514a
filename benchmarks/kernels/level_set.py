"""Level sets: morphological snakes and Chan-Vese beside scikit-image and the package morphsnakes.

The snakes are timed from two starts. From a checkerboard the labels soon repeat, where ours stops
and the peers go on, so ``per_iteration_ratio`` also compares the time of each iteration that was
computed. ``differing_pixels`` counts pixels whose final label differs. The peers' smoothing goes
on in the order in which their last call left it; it is brought back before each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from skimage.segmentation import (
    chan_vese,
    checkerboard_level_set,
    disk_level_set,
    inverse_gaussian_gradient,
    morphological_chan_vese,
    morphological_geodesic_active_contour,
    morphsnakes,
)

from benchmarks.kernels.growth import grown, sizes
from benchmarks.kernels.racing import Row, Setting, peer, photo, race, size_name, threads
from hybridseg import inference as ours

PHOTOS = ("camera", "coins", "astronaut")
N_ITER = 40
Case = tuple[str, tuple[int, ...], Callable[[], Any], dict[str, Callable[[], Any]]]


def rows(setting: Setting) -> Iterator[Row]:
    """Snakes on one thread (they use no more), Chan-Vese on each number, and the scaling."""
    cases = [case for size in setting.sizes for name in PHOTOS for case in _snakes(name, size)]
    for case, shape, our_call, peers in [*cases, *_volume(setting)]:
        yield from _raced("morphological snakes", case, shape, our_call, peers, setting, 1)
    for size in setting.sizes:
        for name in PHOTOS:
            image = _gray(name, size)
            for n_threads in setting.threads:
                yield from _chan_vese_rows(f"{name}, {N_ITER} it.", image, n_threads, setting)
    for size in sizes(setting, most=13e6):
        yield from _grown(setting, _gray("camera", size))
    for side in (48,) if setting.quick else (48, 96, 192):
        image = _noisy_planes(side, side)
        call = partial(ours.morphological_chan_vese, image, 10, STARTS["disk"](image.shape))
        yield grown(
            setting, "morphological snakes", "volume, regions from disk, 10 it.", image.shape, call
        )


def _grown(setting: Setting, image: np.ndarray) -> Iterator[Row]:
    size, case = image.shape, f"camera, regions from disk, {N_ITER} it."
    snake = partial(ours.morphological_chan_vese, image, N_ITER, STARTS["disk"](size))
    yield grown(setting, "morphological snakes", case, size, snake)
    descent = partial(ours.chan_vese, image, tol=0, max_iter=10)
    yield grown(setting, "Chan-Vese", "camera, 10 it., float64", size, descent)


def _gray(name: str, size: tuple[int, int]) -> np.ndarray:
    image = photo(name, size)
    if image.ndim == 2:
        return image
    return (image @ np.array([0.2126, 0.7152, 0.0722])).round().astype(np.uint8)


def _fresh(module: Any) -> None:
    """Reset the order of the peer's smoothing operators to that of its first call."""
    module._curvop.funcs = cycle(
        [
            lambda u: module.sup_inf(module.inf_sup(u)),
            lambda u: module.inf_sup(module.sup_inf(u)),
        ]
    )


def _peers(name: str, *arguments: Any, **options: Any) -> dict[str, Callable[[], Any]]:
    def scikit_image() -> np.ndarray:
        _fresh(morphsnakes)
        return SNAKES[name](*arguments, **options)

    calls: dict[str, Callable[[], Any]] = {"scikit-image": scikit_image}
    package = peer("morphsnakes")
    if package is not None:

        def original() -> np.ndarray:
            _fresh(package)
            return getattr(package, name)(*arguments, **options)

        calls["morphsnakes"] = original
    return calls


STARTS = {"checkerboard": checkerboard_level_set, "disk": disk_level_set}
SNAKES = {
    "morphological_chan_vese": morphological_chan_vese,
    "morphological_geodesic_active_contour": morphological_geodesic_active_contour,
}


def _snakes(name: str, size: tuple[int, int]) -> Iterator[Case]:
    image = _gray(name, size)
    for start in ("checkerboard", "disk"):
        yield _regions(f"{name}, regions from {start}, {N_ITER} it.", image, start, N_ITER)
    edges = inverse_gaussian_gradient(image / 255.0, sigma=2.0)
    disk = disk_level_set(size)
    yield (
        f"{name}, contour with balloon, {N_ITER} it.",
        size,
        lambda: ours.morphological_geodesic_active_contour(edges, N_ITER, disk, balloon=-1),
        _peers("morphological_geodesic_active_contour", edges, N_ITER, disk, balloon=-1),
    )


def _volume(setting: Setting) -> Iterator[Case]:
    side, n_iter = (48, 4) if setting.quick else (128, 10)
    volume = _noisy_planes(side, 64)
    for start in ("checkerboard", "disk"):
        yield _regions(f"volume, regions from {start}, {n_iter} it.", volume, start, n_iter)
    edges = inverse_gaussian_gradient(volume / 255.0, sigma=2.0)
    disk = disk_level_set(volume.shape)
    yield (
        f"volume, contour with balloon, {n_iter} it.",
        volume.shape,
        lambda: ours.morphological_geodesic_active_contour(edges, n_iter, disk, balloon=-1),
        _peers("morphological_geodesic_active_contour", edges, n_iter, disk, balloon=-1),
    )


def _noisy_planes(side: int, depth: int) -> np.ndarray:
    """A volume of the photograph, moved and noisy from plane to plane."""
    random = np.random.default_rng(0)
    plane = _gray("coins", (side, side)).astype(float)
    moved = (np.roll(plane, k // 4, axis=1) for k in range(depth))
    planes = [each + random.normal(0, 20, plane.shape) for each in moved]
    return np.clip(planes, 0, 255).astype(np.uint8)


def _regions(case: str, image: np.ndarray, start: str, n_iter: int) -> Case:
    init = STARTS[start](image.shape)
    return (
        case,
        image.shape,
        lambda: ours.morphological_chan_vese(image, n_iter, init),
        _peers("morphological_chan_vese", image, n_iter, init),
    )


def _raced(
    kernel: str,
    case: str,
    shape: tuple[int, ...],
    our_call: Callable[[], Any],
    peers: dict[str, Callable[[], Any]],
    setting: Setting,
    n_threads: int,
) -> Iterator[Row]:
    with threads(n_threads):
        timings = race({"ours": our_call, **peers}, setting.seconds)
    mine = timings["ours"]
    done = mine.result.n_iter
    asked = int(case.split(", ")[-1].split()[0])
    for name in peers:
        differing = np.count_nonzero(mine.result.labels != timings[name].result)
        ratio = timings[name].best_s / asked / (mine.best_s / max(done, 1))
        yield Row(
            kernel,
            case,
            size_name(shape),
            n_threads,
            name,
            mine.best_s,
            timings[name].best_s,
            mine.first_s,
            agreement={
                "differing_pixels": int(differing),
                "iterations_computed": done,
                "per_iteration_ratio": round(ratio, 1),
            },
        )


def _chan_vese_rows(
    case: str, image: np.ndarray, n_threads: int, setting: Setting
) -> Iterator[Row]:
    options = {
        "float64": {},
        "float64, no energy": {"with_energy": False},
        "float32": {"dtype": np.float32},
        "float32, no energy": {"dtype": np.float32, "with_energy": False},
    }
    contenders: dict[str, Callable[[], Any]] = {
        name: lambda chosen=chosen: ours.chan_vese(image, tol=0, max_iter=N_ITER, **chosen)
        for name, chosen in options.items()
    }
    contenders["scikit-image"] = lambda: chan_vese(
        image, tol=0, max_num_iter=N_ITER, extended_output=True
    )
    with threads(n_threads):
        timings = race(contenders, setting.seconds)
    labels, level_set, energies = timings["scikit-image"].result
    for name in options:
        found = timings[name].result
        agreement: dict[str, float] = {
            "differing_pixels": int(np.count_nonzero(found.labels != labels)),
            "greatest_difference": float(np.abs(found.level_set - level_set).max()),
        }
        if found.energies:
            ratios = np.array(found.energies[:-1]) / energies
            agreement["energy_relative_difference"] = float(np.abs(ratios - 1).max())
        yield Row(
            "Chan-Vese",
            f"{case}, {name}",
            size_name(image.shape),
            n_threads,
            "scikit-image",
            timings[name].best_s,
            timings["scikit-image"].best_s,
            timings[name].first_s,
            agreement=agreement,
        )
