"""Alpha-expansion of Potts energies against gco-wrapper, bkgco and PyMaxflow.

All solve the same whole-number energies: costs and weights are rounded to a thousandth, and every
result is judged by :func:`hybridseg.pairwise.energy` in int64. PyMaxflow's ``aexpansion_grid``
takes one weight for all edges only, so it has rows of its own, in which ours has these weights too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.kernels import racing
from benchmarks.kernels.racing import Row, Setting, race, size_name
from hybridseg.inference import graph_cut
from hybridseg.pairwise import energy, grid_weights

UNIT = 1000  # parts that a cost of 1 is divided into
PICTURE = "coffee"
#: Name, noise of the costs, and weight of the edges.
CASES = (("confident", 0.2, 2.0), ("noisy", 0.7, 4.0), ("noisy, strong", 0.7, 20.0))

Solve = Callable[[], np.ndarray]


def rows(setting: Setting) -> Iterator[Row]:
    for size in setting.sizes:
        large = size[0] * size[1] > 1_000_000
        for n_labels in (8, 21):
            for name, noise, weight in CASES:
                if large and (setting.quick or name == "noisy, strong"):
                    print(f"# {size_name(size)} {n_labels} labels, {name}: left out (minutes)")
                    continue
                yield from _rows(setting, size, n_labels, name, noise, weight)


def _rows(
    setting: Setting, size: tuple[int, int], n_labels: int, name: str, noise: float, weight: float
) -> Iterator[Row]:
    image = racing.picture(PICTURE, size)
    unary = _whole(racing.soft_costs(image, n_labels, noise))
    for kind in ("contrast", "uniform"):
        contrast = "auto" if kind == "contrast" else None
        weights = [
            _whole(w) for w in grid_weights(image, weight=weight, contrast=contrast).values()
        ]
        peers = _contrast_peers(unary, weights) if kind == "contrast" else _uniform(unary, weights)
        if not peers:
            continue
        ours: dict[str, Callable[[], Any]] = {
            "ours": lambda w=weights: graph_cut(unary, w),
            "ours, no sweeps": lambda w=weights: graph_cut(unary, w, bound_iter=0),
        }
        with racing.threads(1):
            timings = race(ours | peers, setting.seconds)
        found = timings["ours"].result
        alone = timings["ours, no sweeps"]
        for peer in peers:
            theirs = energy(np.asarray(timings[peer].result).reshape(size), unary, weights)
            yield Row(
                kernel="expansion",
                case=f"{PICTURE}, {n_labels} labels, {name}, {kind} weights",
                size=size_name(size),
                threads=1,
                peer=peer,
                ours_s=timings["ours"].best_s,
                peer_s=timings[peer].best_s,
                ours_first_s=timings["ours"].first_s,
                agreement={
                    "energy": found.energy / UNIT,
                    "peer_energy": theirs / UNIT,
                    "lower_bound": found.lower_bound / UNIT,
                    "not_above_peer": found.energy <= theirs,
                    "without_sweeps_s": alone.best_s,
                    "without_sweeps_energy": alone.result.energy / UNIT,
                },
            )


def _whole(costs: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(costs, np.float64) * UNIT).astype(np.int64)


def _contrast_peers(unary: np.ndarray, weights: list[np.ndarray]) -> dict[str, Solve]:
    peers: dict[str, Solve] = {}
    n_labels = unary.shape[-1]
    gco = racing.peer("gco")
    if gco is not None:
        # it scales costs to whole numbers by factors of its own, of which UNIT is a divisor
        costs = (unary - unary.min()) / UNIT
        down, right = (w / UNIT for w in weights)
        potts = 1.0 - np.eye(n_labels)
        peers["gco-wrapper"] = lambda: gco.cut_grid_graph(
            costs, potts, down, right, n_iter=-1, algorithm="expansion"
        )
    bkgco = racing.peer("bkgco")
    if bkgco is not None:
        shape = unary.shape[:2]
        edges, strengths = _edges(weights, shape)

        def solve() -> np.ndarray:
            with bkgco.GCO(shape[0] * shape[1], n_labels, dtype=np.int64) as graph:
                graph.set_data_cost(unary.reshape(-1, n_labels))
                graph.set_smooth_cost(1 - np.eye(n_labels, dtype=np.int64))
                graph.set_neighbors(edges, strengths)
                graph.expansion()
                return np.array(graph.get_labeling())

        peers["bkgco"] = solve
    return peers


def _edges(weights: list[np.ndarray], shape: tuple[int, int]) -> tuple[Any, np.ndarray]:
    """The edge list of the grid, which bkgco takes."""
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    pairs = ((index[:-1], index[1:]), (index[:, :-1], index[:, 1:]))
    i, j = (np.concatenate([pair[end].ravel() for pair in pairs]) for end in (0, 1))
    return (i, j), np.concatenate([w.ravel() for w in weights])


def _uniform(unary: np.ndarray, weights: list[np.ndarray]) -> dict[str, Solve]:
    library = racing.peer("maxflow")
    if library is None:
        return {}
    from maxflow import fastmin

    n_labels = unary.shape[-1]
    pair = float(weights[0].flat[0]) * (1.0 - np.eye(n_labels))
    costs = unary.astype(np.float64)
    return {"PyMaxflow": lambda: fastmin.aexpansion_grid(costs, pair)}
