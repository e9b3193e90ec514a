"""Scores of a cell with paired intervals over the test images, and the table of all cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.search.scores import score_of

AUTO = "AutoHybrid"
_N_RESAMPLES = 2000


def summary(tables: Mapping[str, list[NDArray[Any]]], *, own: bool) -> dict[str, Any]:
    """Return scores in points, and intervals of the differences from AutoHybrid.

    Parameters
    ----------
    tables : mapping from method to one confusion table for each test image
    own : bool
        Whether each image has classes of its own: the score is the mean over images. Otherwise it
        is computed from all pixels together.
    """
    n_images = len(tables[AUTO])
    draws = np.random.default_rng(0).multinomial(
        n_images, np.full(n_images, 1 / n_images), _N_RESAMPLES
    )
    weights = np.concatenate([np.ones((1, n_images)), draws])
    scores = {method: 100 * _scores(each, weights, own) for method, each in tables.items()}
    return {
        "n_test": n_images,
        "scores": {method: round(float(each[0]), 2) for method, each in scores.items()},
        "intervals": {method: _interval(each[1:]) for method, each in scores.items()},
        "AutoHybrid minus": {
            method: [
                round(float(scores[AUTO][0] - each[0]), 2),
                *_interval((scores[AUTO] - each)[1:]),
            ]
            for method, each in scores.items()
            if method != AUTO
        },
    }


def _scores(each: list[NDArray[Any]], weights: NDArray[Any], own: bool) -> NDArray[np.float64]:
    if own:
        return weights @ np.array([score_of(t, "mean_iou") for t in each]) / len(each)
    return score_of(np.tensordot(weights, np.stack(each).astype(float), axes=1), "mean_iou")


def _difference(values: NDArray[Any]) -> list[float]:
    return [round(float(values[0]), 2), *_interval(values[1:])]


def _interval(values: NDArray[Any]) -> list[float]:
    return [round(float(end), 2) for end in np.percentile(values, [2.5, 97.5])]


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row for each cell, then the mean over cells of all methods that are in each."""
    yield "| set | images | AutoHybrid | chosen | best single method | its score | difference |"
    yield "|---|---:|---:|---|---|---:|---:|"
    cells = [
        (name, size, results[name][size])
        for name in results
        for size in sorted(results[name], key=int)
    ]
    for name, size, cell in cells:
        scores = dict(cell["scores"])
        auto = scores.pop(AUTO)
        best = max(scores, key=lambda method: scores[method])
        mean, low, high = cell["AutoHybrid minus"][best]
        chosen = cell["chosen"][0] if len(set(cell["chosen"])) == 1 else "differs"
        yield (
            f"| {name} | {size} | {auto:.2f} | {chosen} | {best} | {scores[best]:.2f} | "
            f"{mean:+.2f} ({low:+.2f} to {high:+.2f}) |"
        )
    if not cells:
        return
    shared = set.intersection(*(set(cell["scores"]) for *_, cell in cells))
    yield ""
    yield f"| method | mean over {len(cells)} cells |"
    yield "|---|---:|"
    means = {m: float(np.mean([cell["scores"][m] for *_, cell in cells])) for m in shared}
    for method in sorted(means, key=lambda m: -means[m]):
        yield f"| {method} | {means[method]:.2f} |"
