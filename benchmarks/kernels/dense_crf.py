"""The dense CRF against pydensecrf2: construction and ten iterations of mean field.

Costs as of an uncertain classifier (``soft_costs``) on the coffee photograph; both sides get the
same arrays, kernels, weights and number of iterations. "build" is ours from colors to the joined
lattices and the peer's from an empty model to the last ``addPairwise``, including its
normalization; "iterate" is the inference alone; "all" is `mean_field` from arrays to marginals,
with all its checks. The peer has one thread.

A volume and images of eight channels go to the peer as features, the very arrays that ours
computes. "scaling" rows have no peer: time and memory of `mean_field` for each pixel, as images
grow, and for each label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from benchmarks.kernels import growth
from benchmarks.kernels.racing import (
    Row,
    Setting,
    peer,
    photo,
    race,
    size_name,
    soft_costs,
    threads,
)
from hybridseg.inference import DenseModel, mean_field
from hybridseg.pairwise import BilateralKernel, GaussianKernel

NAME = "dense CRF"
PEER = "pydensecrf2"
#: Standard deviation in pixels and in color of the bilateral kernel: the published example's, and
#: those of DeepLab, whose lattice has about as many vertices as the image has pixels.
WIDTHS = ((80.0, 13.0), (67.0, 3.0))
#: The distances between frames, rows and columns of the volume.
SPACING = (4.0, 1.0, 1.0)
#: How much an absent label costs more than the best: a probability below 1e-4.
ABSENT = 10.0


def rows(setting: Setting) -> Iterator[Row]:
    """Every comparison, size by size."""
    for size in setting.sizes:
        image = photo("coffee", size)
        for width, color in WIDTHS:
            for n_labels in (21, 2):
                unary = soft_costs(image, n_labels)
                yield from _stages(setting, image, unary, width, color)
        yield from _pruned(setting, image)
        yield from _reused(setting, image)
    image = photo("coffee", setting.sizes[0])
    for n_labels in (2, 3, 4, 5, 8, 16, 32, 64, 150):
        if not (setting.quick and n_labels > 32):
            yield from _scaling(setting, image, n_labels)
    yield from _by_features(setting, "4 labels, wandering crop, spacing 4", *_wandering_crop(image))
    yield from _by_features(setting, "4 labels, 8 channels", _eight_channels(image), image, None)
    # four labels and five iterations, so that 48 megapixels stay within some ten gigabytes
    for size in growth.sizes(setting):
        image = growth.photograph(size)
        call = partial(mean_field, soft_costs(image, 4), image, n_iter=5)
        yield growth.grown(setting, NAME, "4 labels, 5 iterations", size, call)


def _stages(
    setting: Setting, image: np.ndarray, unary: np.ndarray, width: float, color: float
) -> Iterator[Row]:
    """Time ours and the peer: the whole call, the construction, and the iterations."""
    options = {"bilateral_width": width, "bilateral_color": color}
    case = f"{unary.shape[-1]} labels, widths {width:g}/{color:g} and 3"
    model = DenseModel.of(image, **options)
    build = _peer_build(image, unary, width, color)
    infer = _peer_infer(build)
    ours: dict[str, Any] = {
        "all": lambda: mean_field(unary, image, **options).marginals,
        "build": lambda: DenseModel.of(image, **options) and None,
        "iterate": lambda: model.mean_field(unary).marginals,
    }
    theirs: dict[str, Any] = {
        "all": build and (lambda: _run(build())),
        "build": build and (lambda: build() and None),
        "iterate": infer,
    }
    for n_threads in setting.threads:
        with threads(n_threads):
            for stage, run in ours.items():
                yield _row(setting, case, image, n_threads, stage, run, theirs[stage])


def _pruned(setting: Setting, image: np.ndarray) -> Iterator[Row]:
    """Costs of 21 labels; the image shows four, and the others have probabilities below 1e-4."""
    seen = soft_costs(image, 4)
    random = np.random.default_rng(1)
    excess = ABSENT + random.exponential(1.0, (*seen.shape[:-1], 17))
    unary = np.concatenate([seen, seen.min(axis=-1, keepdims=True) + excess], axis=-1)
    unary = unary.astype(np.float32)
    build = _peer_build(image, unary, 80.0, 13.0)
    for n_threads in setting.threads:
        with threads(n_threads):
            for prune in (None, 1e-4):
                case = f"21 labels, 4 present, prune={prune}, widths 80/13 and 3"
                run = lambda prune=prune: mean_field(unary, image, prune=prune).marginals  # noqa: E731
                other = build and (lambda: _run(build()))
                yield _row(setting, case, image, n_threads, "all", run, other)


def _reused(setting: Setting, image: np.ndarray) -> Iterator[Row]:
    """Time a second call for one image: ours keeps the lattices, the peer starts again."""
    unary = soft_costs(image, 21, seed=1)
    model = DenseModel.of(image)
    build = _peer_build(image, unary, 80.0, 13.0)
    for n_threads in setting.threads:
        with threads(n_threads):
            case = "21 labels, lattices reused, widths 80/13 and 3"
            run = lambda: model.mean_field(unary).marginals  # noqa: E731
            other = build and (lambda: _run(build()))
            yield _row(setting, case, image, n_threads, "all", run, other)


def _wandering_crop(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Return a volume of 24 shifted crops of 96 x 128 pixels, twice, and its spacing."""
    frames = [image[3 * t : 3 * t + 96, 4 * t : 4 * t + 128] for t in range(24)]
    volume = np.ascontiguousarray(np.stack(frames))
    return volume, volume, SPACING


def _eight_channels(image: np.ndarray) -> np.ndarray:
    """The colors, the same smoothed, and the strength of edges on two scales; uint8."""
    smooth = gaussian_filter(image.astype(np.float32), (2, 2, 0))
    gray = image.mean(axis=-1)
    edges = [gaussian_gradient_magnitude(gray, sigma) for sigma in (1.0, 3.0)]
    edges = [255 * edge / edge.max() for edge in edges]
    return np.concatenate([image, smooth, np.stack(edges, -1)], -1).round().astype(np.uint8)


def _by_features(
    setting: Setting,
    case: str,
    image: np.ndarray,
    seen: np.ndarray,
    spacing: tuple[float, ...] | None,
) -> Iterator[Row]:
    """Time ours on the image, and the peer on the features of the same two kernels."""
    unary = soft_costs(seen.reshape(-1, *seen.shape[-2:]), 4).reshape(*seen.shape[:-1], 4)
    terms = GaussianKernel(3.0, 3.0), BilateralKernel(10.0, 80.0, 13.0)
    features = [term.embed(image.astype(np.float32), spacing) for term in terms]
    build = _peer_of_features(unary, [np.ascontiguousarray(each.T) for each in features])
    for n_threads in setting.threads:
        with threads(n_threads):
            run = lambda: mean_field(unary, image, spacing=spacing).marginals  # noqa: E731
            other = build and (lambda: _run(build()))
            yield _row(setting, case, unary, n_threads, "all", run, other)


def _peer_of_features(unary: np.ndarray, features: list[np.ndarray]) -> Any:
    if peer("pydensecrf") is None:
        return None
    from pydensecrf.densecrf import DenseCRF

    n_labels = unary.shape[-1]
    energy = np.ascontiguousarray(unary.reshape(-1, n_labels).T)

    def build() -> Any:
        model = DenseCRF(energy.shape[1], n_labels)
        model.setUnaryEnergy(energy)
        for each, weight in zip(features, (3, 10), strict=True):
            model.addPairwiseEnergy(each, compat=weight)
        return model

    return build


def _scaling(setting: Setting, image: np.ndarray, n_labels: int) -> Iterator[Row]:
    unary = soft_costs(image, n_labels)
    build = _peer_build(image, unary, 80.0, 13.0)
    for n_threads in setting.threads:
        with threads(n_threads):
            case = f"{n_labels} labels, widths 80/13 and 3"
            run = lambda: mean_field(unary, image).marginals  # noqa: E731
            other = build and (lambda: _run(build()))
            row = _row(setting, case, image, n_threads, "scaling", run, other)
            yield replace(row, agreement={**row.agreement, "labels": n_labels})


def _row(
    setting: Setting,
    case: str,
    image: np.ndarray,
    n_threads: int,
    stage: str,
    ours: Any,
    theirs: Any,
) -> Row:
    contenders = {"ours": ours} | ({PEER: theirs} if theirs else {})
    timings = race(contenders, setting.seconds)
    agreement: dict[str, float] = {}
    if theirs and timings["ours"].result is not None:
        agreement = _agreement(timings["ours"].result, timings[PEER].result)
    return Row(
        NAME,
        case,
        size_name(image.shape[:-1]),
        n_threads,
        PEER if theirs else "",
        timings["ours"].best_s,
        timings[PEER].best_s if theirs else float("nan"),
        timings["ours"].first_s,
        stage,
        agreement,
    )


def _agreement(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    expected = expected.T.reshape(found.shape)
    difference = np.abs(found - expected)
    return {
        "max |dQ|": float(difference.max()),
        "mean |dQ|": float(difference.mean()),
        "same label": float((found.argmax(-1) == expected.argmax(-1)).mean()),
    }


def _peer_build(image: np.ndarray, unary: np.ndarray, width: float, color: float) -> Any:
    """Return a function that makes the peer's model, or None if the peer is not installed."""
    if peer("pydensecrf") is None:
        return None
    from pydensecrf.densecrf import DenseCRF2D

    height, across, n_labels = unary.shape
    energy = np.ascontiguousarray(unary.reshape(-1, n_labels).T)

    def build() -> Any:
        model = DenseCRF2D(across, height, n_labels)
        model.setUnaryEnergy(energy)
        model.addPairwiseGaussian(sxy=3, compat=3)
        model.addPairwiseBilateral(sxy=width, srgb=color, rgbim=image, compat=10)
        return model

    return build


def _peer_infer(build: Any) -> Any:
    if build is None:
        return None
    model = build()
    return lambda: _run(model)


def _run(model: Any) -> np.ndarray:
    return np.array(model.inference(10))
