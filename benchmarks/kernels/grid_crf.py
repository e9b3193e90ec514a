"""Mean field on the pixel grid, compared with NumPy, the dense CRF, and the best labeling.

pip knows no C++ or compiled mean field for grids (pgmpy and its like are pure Python, on graphs of
some hundred nodes), so the peer is the same checkerboard schedule written with whole NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.kernels.growth import grown, sizes
from benchmarks.kernels.racing import (
    Row,
    Setting,
    peer,
    photo,
    race,
    size_name,
    soft_costs,
    softmax,
    threads,
)
from hybridseg.inference import graph_cut, grid_mean_field, mean_field
from hybridseg.pairwise import energy, grid_weights
from hybridseg.pairwise.edges import edge_groups

N_ITER = 10

Weights = dict[tuple[int, ...], np.ndarray]


def rows(setting: Setting) -> Iterator[Row]:
    """All sizes with few and many labels, 4, 6 or 8 neighbors, a volume, and the scaling."""
    for size in setting.sizes:
        for n_labels in (2, 21) if setting.quick else (2, 5, 21):
            yield from _case(setting, size, n_labels)
        yield from _diagonals(setting, size, 5)
    yield from _volume(setting, 32 if setting.quick else 96, 5)
    for size in sizes(setting, most=13e6):
        image = photo("coffee", size)
        unary, weights = _problem(image, 5)
        call = partial(grid_mean_field, unary, weights, n_iter=N_ITER)
        yield grown(
            setting, "grid mean field", f"coffee, 5 labels, {N_ITER} iterations", size, call
        )


def _problem(image: np.ndarray, n_labels: int, connectivity: int = 1) -> tuple[np.ndarray, Weights]:
    weights = grid_weights(image, weight=2.0, connectivity=connectivity)
    return soft_costs(image, n_labels), weights


def _volume(setting: Setting, side: int, n_labels: int) -> Iterator[Row]:
    """A photograph drawn along a third axis, with costs of its own in each plane."""
    plane = photo("camera", (side, side))
    costs = [soft_costs(plane, n_labels, seed=seed) for seed in range(side)]
    unary, image = np.stack(costs), np.repeat(plane[np.newaxis], side, axis=0)
    weights = grid_weights(image, weight=2.0, spatial_ndim=3)
    contenders = {
        "ours": partial(grid_mean_field, unary, weights, n_iter=N_ITER),
        "NumPy": partial(checkerboard, unary, weights, N_ITER),
    }
    case = f"volume, {n_labels} labels, {N_ITER} iterations"
    yield from _raced(setting, case, contenders, unary, weights)


def _diagonals(setting: Setting, size: tuple[int, int], n_labels: int) -> Iterator[Row]:
    unary, weights = _problem(photo("coffee", size), n_labels, connectivity=2)
    contenders = {
        "ours": partial(grid_mean_field, unary, weights, n_iter=N_ITER),
        "NumPy": partial(checkerboard, unary, weights, N_ITER),
    }
    case = f"coffee, {n_labels} labels, 8 neighbors"
    yield from _raced(setting, case, contenders, unary, weights)


def _case(setting: Setting, size: tuple[int, int], n_labels: int) -> Iterator[Row]:
    image = photo("coffee", size)
    unary, weights = _problem(image, n_labels)
    contenders = {
        "ours": partial(grid_mean_field, unary, weights, n_iter=N_ITER),
        "NumPy": partial(checkerboard, unary, weights, N_ITER),
        "DenseCRF (ours)": partial(mean_field, unary, image, n_iter=N_ITER),
    }
    if peer("pydensecrf.densecrf") is not None:
        contenders["pydensecrf"] = partial(_pydensecrf, unary, image)
    if n_labels == 2:
        contenders["graph_cut (ours), MAP"] = partial(graph_cut, unary, weights)
    case = f"coffee, {n_labels} labels, {N_ITER} iterations"
    yield from _raced(setting, case, contenders, unary, weights)


def _raced(
    setting: Setting,
    case: str,
    contenders: dict[str, Callable[[], Any]],
    unary: np.ndarray,
    weights: Weights,
) -> Iterator[Row]:
    for n_threads in setting.threads:
        with threads(n_threads):
            timings = race(contenders, setting.seconds)
        ours = timings.pop("ours")
        for name, timing in timings.items():
            yield Row(
                kernel="grid mean field",
                case=case,
                size=size_name(unary.shape[:-1]),
                threads=n_threads,
                peer=name,
                ours_s=ours.best_s,
                peer_s=timing.best_s,
                ours_first_s=ours.first_s,
                agreement=_agreement(name, ours.result, timing.result, unary, weights),
            )


def _agreement(name, ours, theirs, unary, weights):  # type: ignore[no-untyped-def]
    labels = ours.marginals.argmax(axis=-1)
    if name == "NumPy":
        return {"max_difference": float(np.abs(ours.marginals - theirs).max())}
    if name.startswith("graph_cut"):
        start = energy(unary.argmin(axis=-1), unary, weights)
        gained = start - energy(labels, unary, weights)
        return {"share_of_energy_gained": gained / (start - theirs.energy)}
    found = theirs.marginals if hasattr(theirs, "marginals") else theirs
    return {"same_labels": float((found.argmax(axis=-1) == labels).mean())}


def checkerboard(unary: np.ndarray, weights: Weights, n_iter: int) -> np.ndarray:
    """Mean field in NumPy: messages along every offset, then an update of one color."""
    marginals = softmax(-unary)
    groups = edge_groups(weights, unary.shape[:-1])
    places = np.indices(unary.shape[:-1]) % 2
    straight = all(sum(map(abs, offset)) == 1 for offset in weights)
    factors = np.ones(len(places), int) if straight else 2 ** np.arange(len(places))[::-1]
    color = np.tensordot(factors, places, axes=1) % 2 ** (1 if straight else len(places))
    for _ in range(n_iter):
        for turn in range(color.max() + 1):
            scores = -unary
            for p, q, weight in groups:
                scores[p] += weight[..., np.newaxis] * marginals[q]
                scores[q] += weight[..., np.newaxis] * marginals[p]
            here = color == turn
            marginals[here] = softmax(scores[here])
    return marginals


def _pydensecrf(unary: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The fully connected CRF of the usual wrapper, same number of iterations, set-up included."""
    height, width, n_labels = unary.shape
    crf = peer("pydensecrf.densecrf").DenseCRF2D(width, height, n_labels)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(-1, n_labels).T))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.ascontiguousarray(image), compat=10)
    return np.array(crf.inference(N_ITER)).T.reshape(unary.shape)
