"""SLIC and Felzenszwalb's regions beside scikit-image, OpenCV and fast-slic.

All get the RGB image and return a map of regions: conversion of colors and connectivity are in
everybody's time. OpenCV's SLIC gets CIELAB from its own conversion, as its documentation advises.
fast-slic looks at every third row in each iteration unless told otherwise; both ways are timed.
Gray, 16-bit and many-channel images and a volume of uneven spacing race scikit-image alone.
"scaling" has no peer: the coffee photograph from 0.05 to 48 megapixels, with regions of one size.
How good the regions are is the matter of `superpixel_quality`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from skimage.segmentation import felzenszwalb as skimage_felzenszwalb
from skimage.segmentation import slic as skimage_slic

from benchmarks.kernels import growth
from benchmarks.kernels.racing import Row, Setting, Timing, peer, photo, race, size_name, threads
from hybridseg.features import felzenszwalb, slic
from hybridseg.metrics import achievable_accuracy

PHOTOS = ("coffee", "astronaut")
N_ITER, COMPACTNESS = 10, 10.0
#: Regions for each pixel: 600 at 640x480.
DENSITY = 600 / (640 * 480)
SCALE, SIGMA, MIN_SIZE = 100.0, 0.8, 50
#: Depth, height and width of the volume, and the distance of its slices in pixels.
VOLUME, SLICES_APART = (32, 160, 240), 2.5

Method = Callable[[np.ndarray, int], np.ndarray]


def rows(setting: Setting) -> Iterator[Row]:
    for size in setting.sizes:
        for name in PHOTOS:
            for n_threads in setting.threads:
                yield from _slic_rows(name, photo(name, size), n_threads, setting)
            yield from _felzenszwalb_rows(name, photo(name, size), setting)
    yield from _other_rows(setting)
    for size in growth.sizes(setting):
        image = growth.photograph(size)
        n_segments = round(DENSITY * size[0] * size[1])
        call = partial(slic, image, n_segments, COMPACTNESS)
        yield growth.grown(setting, "SLIC", "coffee", size, call)
        call = partial(felzenszwalb, image, SCALE, SIGMA, MIN_SIZE)
        yield growth.grown(setting, "Felzenszwalb", "coffee", size, call)


def _slic_rows(name: str, image: np.ndarray, n_threads: int, setting: Setting) -> Iterator[Row]:
    n_segments = round(DENSITY * image.shape[0] * image.shape[1])
    calls: dict[str, Callable[[], Any]] = {"": lambda: slic(image, n_segments, COMPACTNESS)}
    for label, method in slic_peers(n_threads).items():
        calls[label] = lambda method=method: method(image, n_segments)
    with threads(n_threads):
        timings = race(calls, setting.seconds)
    case = f"{name}, {n_segments} regions"
    yield from _rows("SLIC", case, image, n_threads, timings)


def _rows(
    kernel: str, case: str, image: np.ndarray, n_threads: int, timings: dict[str, Timing]
) -> Iterator[Row]:
    ours = timings.pop("")
    for label, theirs in timings.items():
        yield Row(
            kernel,
            case,
            size_name(image.shape[:2]),
            n_threads,
            label,
            ours.best_s,
            theirs.best_s,
            ours.first_s,
            agreement={"regions": _count(ours.result), "peer_regions": _count(theirs.result)},
        )


def _count(regions: np.ndarray) -> int:
    return len(np.unique(regions))


def slic_peers(n_threads: int) -> dict[str, Method]:
    """Every installed SLIC, as a function of an image and a number of regions."""
    found: dict[str, Method] = {"scikit-image": _skimage}
    opencv = peer("cv2")
    if opencv is not None and hasattr(opencv, "ximgproc"):
        found["OpenCV SLIC"] = lambda image, n: _opencv(opencv, opencv.ximgproc.SLIC, image, n)
        found["OpenCV SLICO"] = lambda image, n: _opencv(opencv, opencv.ximgproc.SLICO, image, n)
    for label, module, name in (
        ("fast-slic", "fast_slic", "Slic"),
        ("fast-slic AVX2", "fast_slic.avx2", "SlicAvx2"),
    ):
        package = peer(module)
        if package is not None:
            for stride, rows_seen in ((1, "all rows"), (3, "1/3 rows")):
                found[f"{label}, {rows_seen}"] = _fast_slic(
                    getattr(package, name), stride, n_threads
                )
    return found


def _skimage(image: np.ndarray, n: int) -> np.ndarray:
    return skimage_slic(image, n, COMPACTNESS, max_num_iter=N_ITER, start_label=0)


def _opencv(opencv: Any, algorithm: int, image: np.ndarray, n: int) -> np.ndarray:
    side = round((image.shape[0] * image.shape[1] / n) ** 0.5)
    lab = opencv.cvtColor(image, opencv.COLOR_RGB2LAB)
    method = opencv.ximgproc.createSuperpixelSLIC(lab, algorithm, side, COMPACTNESS)
    method.iterate(N_ITER)
    method.enforceLabelConnectivity(25)
    return method.getLabels()


def _fast_slic(kind: Any, stride: int, n_threads: int) -> Method:
    def run(image: np.ndarray, n: int) -> np.ndarray:
        method = kind(
            num_components=n,
            compactness=COMPACTNESS,
            subsample_stride=stride,
            num_threads=n_threads,
        )
        return method.iterate(image, N_ITER)

    return run


def _felzenszwalb_rows(name: str, image: np.ndarray, setting: Setting) -> Iterator[Row]:
    """Time 8-bit images, and float images without ties, for which regions are compared."""
    arguments = (SCALE, SIGMA, MIN_SIZE)
    calls: dict[str, Callable[[], Any]] = {
        "": lambda: felzenszwalb(image, *arguments),
        "scikit-image": lambda: skimage_felzenszwalb(image, *arguments),
    }
    opencv = peer("cv2")
    if opencv is not None and hasattr(opencv, "ximgproc"):
        graph = opencv.ximgproc.segmentation.createGraphSegmentation(SIGMA, SCALE, MIN_SIZE)
        calls["OpenCV"] = lambda: graph.processImage(image)
    with threads(1):
        timings = race(calls, setting.seconds)
    yield from _rows("Felzenszwalb", f"{name}, scale {SCALE:g}", image, 1, timings)
    noise = np.random.default_rng(0).uniform(0, 0.003, image.shape)
    noisy = image / 256 + noise  # below 1 everywhere: a clipped sky would be all ties
    with threads(1):
        floats = race(
            {
                "": lambda: felzenszwalb(noisy, *arguments),
                "scikit-image": lambda: skimage_felzenszwalb(noisy, *arguments),
            },
            setting.seconds,
        )
    both = floats[""].result, floats["scikit-image"].result
    same = min(achievable_accuracy(*both), achievable_accuracy(*both[::-1]))
    for row in _rows("Felzenszwalb", f"{name}, floats without ties", image, 1, floats):
        yield replace(row, agreement={**row.agreement, "same_pixels": same})


def _other_rows(setting: Setting) -> Iterator[Row]:
    """Images of other kinds, and a volume whose slices are farther apart than its pixels."""
    image = photo("coffee", setting.sizes[0])
    n = round(DENSITY * image.shape[0] * image.shape[1])
    seven = np.concatenate([image, image[::-1], image[:, ::-1, :1]], axis=-1)
    for case, pixels in (
        ("gray", photo("camera", setting.sizes[0])),
        ("16 bit", image.astype(np.uint16) * 257),
        ("7 channels", seven),
    ):
        color = {"channel_axis": None if pixels.ndim == 2 else -1}
        if pixels.shape[-1] == 7:
            color["convert2lab"] = False
        yield from _against_skimage(setting, f"{case}, {n} regions", pixels, n, {}, color)
    # slices of an image that slides and fades: neighbors in depth are alike, but not equal
    wide = photo("coffee", (VOLUME[1], VOLUME[2] + VOLUME[0]))
    slices = [wide[:, z : z + VOLUME[2]] * (1 - z / 100) for z in range(VOLUME[0])]
    volume = np.stack(slices).astype(np.uint8)
    spacing = (SLICES_APART, 1.0, 1.0)
    yield from _against_skimage(
        setting,
        "volume in color, 1000 regions",
        volume,
        1000,
        {"spacing": spacing},
        {"spacing": spacing},
    )


def _against_skimage(
    setting: Setting,
    case: str,
    image: np.ndarray,
    n: int,
    ours: dict[str, Any],
    theirs: dict[str, Any],
) -> Iterator[Row]:
    calls = {
        "": lambda: slic(image, n, COMPACTNESS, **ours),
        "scikit-image": lambda: skimage_slic(
            image, n, COMPACTNESS, max_num_iter=N_ITER, start_label=0, **theirs
        ),
    }
    spatial = image.shape[:3] if "spacing" in ours else image.shape[:2]
    for n_threads in setting.threads:
        with threads(n_threads):
            timings = race(calls, setting.seconds)
        for row in _rows("SLIC", case, image, n_threads, timings):
            yield replace(row, size=size_name(spatial))
