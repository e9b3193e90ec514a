"""Cuts and mean field with superpixels as nodes: edges between neighbors, and between all pairs.

The cut's peers build the same graph node by node from the same edge list. Mean field on neighbors
has the same schedule, color by color, written with scipy.sparse. The fully connected model of
regions is pydensecrf's DenseCRF on points, whose features are those of ours: it takes no numbers of
pixels, and approximates the kernels on a lattice that a few hundred points leave full of holes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_array

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
    whole,
)
from hybridseg.features import region_graph, region_means, region_sums, slic
from hybridseg.inference import graph_cut, grid_mean_field
from hybridseg.kernels.sparse.graph_mean_field import color_graph
from hybridseg.pairwise import dense_region_weights, energy, region_weights

N_ITER = 10
WIDTH, COLOR = 80.0, 13.0

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]


def rows(setting: Setting) -> Iterator[Row]:
    """Superpixels of the image, few and many, with two and with many labels."""
    for size in setting.sizes:
        image = photo("coffee", size)
        for n_regions in (300,) if setting.quick else (300, 1000, 3000):
            regions = slic(image, n_regions)
            near = region_weights(region_graph(regions), region_means(image, regions), weight=20.0)
            for n_labels in (2, 21):
                costs = region_sums(soft_costs(image, n_labels), regions)
                case = f"coffee, {len(costs)} regions, {n_labels} labels"
                if n_labels == 2:
                    yield from _cuts(setting, size, case, costs, near)
                yield from _near(setting, size, case, costs, near)
                if n_regions <= 1000:
                    yield from _dense(setting, size, case, costs, regions, image)


def _raced(
    setting: Setting,
    size: tuple[int, int],
    kernel: str,
    case: str,
    contenders: dict[str, Callable[[], Any]],
    agreement: Callable[[str, Any, Any], dict[str, float]],
) -> Iterator[Row]:
    """Small problems stay on one thread."""
    with threads(1):
        timings = race(contenders, setting.seconds)
    ours = timings.pop("ours")
    for name, timing in timings.items():
        yield Row(
            kernel=kernel,
            case=case,
            size=size_name(size),
            threads=1,
            peer=name,
            ours_s=ours.best_s,
            peer_s=timing.best_s,
            ours_first_s=ours.first_s,
            agreement=agreement(name, ours.result, timing.result),
        )


# -- minimum cuts ---------------------------------------------------------------------------------


def _cuts(
    setting: Setting, size: tuple[int, int], case: str, costs: np.ndarray, edges: Edges
) -> Iterator[Row]:
    unary, weights = whole(costs), (*edges[:2], whole(edges[2]))
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: graph_cut(unary, weights).labels,
    }
    if peer("maxflow") is not None:
        contenders["PyMaxflow"] = partial(_pymaxflow, unary, weights)
    if peer("bkgco") is not None:
        contenders["bkgco"] = partial(_bkgco, unary, weights)

    def agreement(_name: str, ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
        return {"same_energy": energy(ours, unary, weights) == energy(theirs, unary, weights)}

    yield from _raced(setting, size, "region cut", case, contenders, agreement)


def _pymaxflow(unary: np.ndarray, edges: Edges) -> np.ndarray:
    i, j, w = edges
    network = peer("maxflow").GraphInt(len(unary), len(w))
    nodes = network.add_nodes(len(unary))
    network.add_edges(i, j, w, w)
    network.add_grid_tedges(nodes, unary[:, 0], unary[:, 1])
    network.maxflow()
    return 1 - network.get_grid_segments(nodes).astype(np.int32)


def _bkgco(unary: np.ndarray, edges: Edges) -> np.ndarray:
    i, j, w = edges
    network = peer("bkgco").BKGraph(len(w), dtype=np.int64)
    network.add_tweights(unary)
    network.add_edges(np.stack([i, j], axis=1), np.stack([w, w], axis=1))
    network.maxflow()
    return 1 - np.asarray(network.get_segments(), np.int32)


# -- mean field -----------------------------------------------------------------------------------


def _near(
    setting: Setting, size: tuple[int, int], case: str, costs: np.ndarray, edges: Edges
) -> Iterator[Row]:
    contenders = {
        "ours": lambda: grid_mean_field(costs, edges, n_iter=N_ITER).marginals,
        "scipy.sparse": partial(_sparse, costs, edges),
    }

    def agreement(_name: str, ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
        return {"max_difference": float(np.abs(ours - theirs).max())}

    yield from _raced(setting, size, "region mean field", case, contenders, agreement)


def _sparse(costs: np.ndarray, edges: Edges) -> np.ndarray:
    """Whole-array messages, color by color."""
    i, j, w = edges
    ends = np.concatenate([i, j]), np.concatenate([j, i])
    table = csr_array((np.concatenate([w, w]), ends), shape=(len(costs), len(costs)))
    colors = color_graph(table.indptr.astype(np.int64), table.indices.astype(np.int32))
    classes = [np.flatnonzero(colors == color) for color in range(colors.max() + 1)]
    parts = [(nodes, table[nodes]) for nodes in classes]
    marginals = softmax(-costs)
    for _ in range(N_ITER):
        for nodes, part in parts:
            marginals[nodes] = softmax(part @ marginals - costs[nodes])
    return marginals


# -- all regions joined ---------------------------------------------------------------------------


def _dense(
    setting: Setting,
    size: tuple[int, int],
    case: str,
    costs: np.ndarray,
    regions: np.ndarray,
    image: np.ndarray,
) -> Iterator[Row]:
    contenders = {
        "ours": lambda: (
            grid_mean_field(costs, dense_region_weights(regions, image), n_iter=N_ITER).marginals
        ),
        "scipy.sparse": lambda: _sparse(costs, dense_region_weights(regions, image)),
    }
    if peer("pydensecrf.densecrf") is not None:
        contenders["pydensecrf"] = partial(_pydensecrf, costs, regions, image)

    def agreement(_name: str, ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
        return {"same_labels": float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())}

    yield from _raced(setting, size, "dense region field", case, contenders, agreement)


def _pydensecrf(costs: np.ndarray, regions: np.ndarray, image: np.ndarray) -> np.ndarray:
    places = np.stack(np.indices(regions.shape)[::-1], axis=-1)
    features = [region_means(places, regions) / WIDTH, region_means(image, regions) / COLOR]
    points = np.concatenate(features, axis=1)
    crf = peer("pydensecrf.densecrf").DenseCRF(*costs.shape)
    crf.setUnaryEnergy(np.ascontiguousarray(costs.T))
    crf.addPairwiseEnergy(np.ascontiguousarray(points.T), compat=3)
    return np.array(crf.inference(N_ITER)).T
