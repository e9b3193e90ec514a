"""Alpha-expansion of Potts energies against gco-wrapper, bkgco and PyMaxflow.

All solve the same whole-number energies: costs and weights are rounded to a thousandth, and every
result is judged by :func:`hybridseg.pairwise.energy` in int64. Ours is raced with each number of
threads; the peers have one. A volume, whose slices are shifted copies of the image, and the
image's superpixels go to bkgco, which takes lists of edges. PyMaxflow's ``aexpansion_grid`` takes
one weight for all edges only, so it has rows of its own, in which ours has these weights too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.kernels import racing
from benchmarks.kernels.racing import Row, Setting, race, size_name
from hybridseg.features import region_graph, region_means, slic
from hybridseg.inference import GraphCutResult, graph_cut
from hybridseg.pairwise import energy, grid_weights, region_weights
from hybridseg.pairwise.edges import edge_groups, edge_list

PHOTO = "coffee"
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
        yield from _other_graphs(setting, size)


def _other_graphs(setting: Setting, size: tuple[int, int]) -> Iterator[Row]:
    """16 slices of a sixteenth of the image's pixels, and its superpixels of 40 pixels."""
    image = racing.photo(PHOTO, (size[0] // 4, size[1] // 4))
    volume = np.stack([np.roll(image, step, axis=1) for step in range(16)])
    flat = racing.soft_costs(volume.reshape(-1, image.shape[1], 3), 8, 0.7)
    unary = racing.whole(flat.reshape(*volume.shape[:3], 8))
    weights = [racing.whole(w) for w in grid_weights(volume, weight=4.0).values()]
    yield from _race(setting, "volume, 8 labels, noisy", unary, weights, _bkgco(unary, weights))

    image = racing.photo(PHOTO, size)
    regions = slic(image, size[0] * size[1] // 40)
    graph = region_graph(regions)
    costs = region_means(racing.soft_costs(image, 8, 0.7), regions)
    sizes = np.bincount(regions.ravel())[:, np.newaxis]
    i, j, w = region_weights(graph, region_means(image, regions), weight=4.0)
    unary, edges = racing.whole(costs * sizes), (i, j, racing.whole(w))
    yield from _race(setting, "superpixels, 8 labels, noisy", unary, edges, _bkgco(unary, edges))


def _race(
    setting: Setting,
    case: str,
    unary: np.ndarray,
    weights: Any,
    peers: dict[str, Solve],
    *,
    without_sweeps: bool = False,
) -> Iterator[Row]:
    ours = {f"ours, {n}": partial(_ours, n, unary, weights) for n in setting.threads}
    if without_sweeps:
        ours["ours, no sweeps"] = partial(_ours, 1, unary, weights, bound_iter=0)
    timings, more = race(ours | peers, setting.seconds), {}
    if without_sweeps:
        alone = timings["ours, no sweeps"]
        more = {
            "without_sweeps_s": alone.best_s,
            "without_sweeps_energy": alone.result.energy / racing.UNIT,
        }
    for n_threads, peer in product(setting.threads, peers):
        mine = timings[f"ours, {n_threads}"]
        found = mine.result
        theirs = energy(np.asarray(timings[peer].result).reshape(unary.shape[:-1]), unary, weights)
        yield Row(
            kernel="expansion",
            case=f"{PHOTO}, {case}",
            size=size_name(unary.shape[:-1]),
            threads=n_threads,
            peer=peer,
            ours_s=mine.best_s,
            peer_s=timings[peer].best_s,
            ours_first_s=mine.first_s,
            agreement={
                "energy": found.energy / racing.UNIT,
                "peer_energy": theirs / racing.UNIT,
                "lower_bound": found.lower_bound / racing.UNIT,
                "not_above_peer": found.energy <= theirs,
                **more,
            },
        )


def _ours(n_threads: int, unary: np.ndarray, weights: Any, **options: Any) -> GraphCutResult:
    with racing.threads(n_threads):
        return graph_cut(unary, weights, **options)


def _rows(
    setting: Setting, size: tuple[int, int], n_labels: int, name: str, noise: float, weight: float
) -> Iterator[Row]:
    image = racing.photo(PHOTO, size)
    unary = racing.whole(racing.soft_costs(image, n_labels, noise))
    for kind in ("contrast", "uniform"):
        contrast = "auto" if kind == "contrast" else None
        weights = [
            racing.whole(w) for w in grid_weights(image, weight=weight, contrast=contrast).values()
        ]
        peers = _contrast_peers(unary, weights) if kind == "contrast" else _uniform(unary, weights)
        if peers:
            case = f"{n_labels} labels, {name}, {kind} weights"
            yield from _race(setting, case, unary, weights, peers, without_sweeps=True)


def _contrast_peers(unary: np.ndarray, weights: list[np.ndarray]) -> dict[str, Solve]:
    peers: dict[str, Solve] = {}
    n_labels = unary.shape[-1]
    gco = racing.peer("gco")
    if gco is not None:
        # it scales costs to whole numbers by factors of its own, of which UNIT is a divisor
        costs = (unary - unary.min()) / racing.UNIT
        down, right = (w / racing.UNIT for w in weights)
        potts = 1.0 - np.eye(n_labels)
        peers["gco-wrapper"] = lambda: gco.cut_grid_graph(
            costs, potts, down, right, n_iter=-1, algorithm="expansion"
        )
    return peers | _bkgco(unary, weights)


def _bkgco(unary: np.ndarray, weights: Any) -> dict[str, Solve]:
    bkgco = racing.peer("bkgco")
    if bkgco is None:
        return {}
    n_labels = unary.shape[-1]
    i, j, strengths = edge_list(edge_groups(weights, unary.shape[:-1]), unary.shape[:-1])

    def solve() -> np.ndarray:
        with bkgco.GCO(unary.size // n_labels, n_labels, dtype=np.int64) as graph:
            graph.set_data_cost(unary.reshape(-1, n_labels))
            graph.set_smooth_cost(1 - np.eye(n_labels, dtype=np.int64))
            graph.set_neighbors((i, j), strengths)
            graph.expansion()
            return np.array(graph.get_labeling())

    return {"bkgco": solve}


def _uniform(unary: np.ndarray, weights: list[np.ndarray]) -> dict[str, Solve]:
    library = racing.peer("maxflow")
    if library is None:
        return {}
    from maxflow import fastmin

    n_labels = unary.shape[-1]
    pair = float(weights[0].flat[0]) * (1.0 - np.eye(n_labels))
    costs = unary.astype(np.float64)
    return {"PyMaxflow": lambda: fastmin.aexpansion_grid(costs, pair)}
