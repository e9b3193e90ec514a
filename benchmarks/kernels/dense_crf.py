"""The dense CRF against pydensecrf2: construction and ten iterations of mean field.

Costs as of an uncertain classifier (``soft_costs``) on the coffee photograph; both sides get the
same arrays, kernels, weights and number of iterations. "build" is ours from colours to the joined
lattices and the peer's from an empty model to the last ``addPairwise``, including its
normalisation; "iterate" is the inference alone; "all" is `mean_field` from arrays to marginals,
with all its checks. The peer has one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.kernels.racing import (
    Row,
    Setting,
    peer,
    picture,
    race,
    size_name,
    soft_costs,
    threads,
)
from hybridseg.inference import DenseModel, mean_field

NAME = "dense CRF"
PEER = "pydensecrf2"
#: Standard deviation in pixels and in colour of the bilateral kernel: the published example's, and
#: those of DeepLab, whose lattice has about as many vertices as the picture has pixels.
WIDTHS = ((80.0, 13.0), (67.0, 3.0))
#: How much an absent label costs more than the best: a probability below 1e-4.
ABSENT = 10.0


def rows(setting: Setting) -> Iterator[Row]:
    """Every comparison, size by size."""
    for size in setting.sizes:
        image = picture("coffee", size)
        for width, color in WIDTHS:
            for n_labels in (21, 2):
                unary = soft_costs(image, n_labels)
                yield from _stages(setting, image, unary, width, color)
        yield from _pruned(setting, image)
        yield from _reused(setting, image)
    image = picture("coffee", setting.sizes[0])
    for n_labels in (3, 4, 5, 8, 16, 32, 64, 150):
        if not (setting.quick and n_labels > 32):
            yield from _scaling(setting, image, n_labels)


def _stages(
    setting: Setting, image: np.ndarray, unary: np.ndarray, width: float, color: float
) -> Iterator[Row]:
    """Ours and the peer: the whole, the construction, and the iterations."""
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
    """21 labels of which the picture shows four; the others' probability is below 1e-4."""
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
    """The second costs for one picture: ours keeps the lattices, the peer begins anew."""
    unary = soft_costs(image, 21, seed=1)
    model = DenseModel.of(image)
    build = _peer_build(image, unary, 80.0, 13.0)
    for n_threads in setting.threads:
        with threads(n_threads):
            case = "21 labels, lattices reused, widths 80/13 and 3"
            run = lambda: model.mean_field(unary).marginals  # noqa: E731
            other = build and (lambda: _run(build()))
            yield _row(setting, case, image, n_threads, "all", run, other)


def _scaling(setting: Setting, image: np.ndarray, n_labels: int) -> Iterator[Row]:
    unary = soft_costs(image, n_labels)
    build = _peer_build(image, unary, 80.0, 13.0)
    for n_threads in setting.threads:
        with threads(n_threads):
            case = f"{n_labels} labels, widths 80/13 and 3"
            run = lambda: mean_field(unary, image).marginals  # noqa: E731
            other = build and (lambda: _run(build()))
            yield _row(setting, case, image, n_threads, "all", run, other)


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
        size_name(image.shape[:2]),
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
    """A function that makes the peer's model, or None where it is not installed."""
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
