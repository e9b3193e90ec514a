"""Families of grids and graphs: mean field, cuts and regions."""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridseg.features import (
    region_graph,
    region_labels,
    region_means,
    region_sums,
)
from hybridseg.inference import (
    DynamicCut,
    graph_cut,
    grid_mean_field,
)
from hybridseg.pairwise import dense_region_weights, grid_weights, region_weights
from tests.kernels.sweep.cases import (
    Shape,
    family,
)


def _weights(of: Shape, connectivity: int) -> Any:
    return grid_weights(
        of.image(), connectivity=connectivity, spatial_ndim=len(of.shape), valid=of.valid()
    )


def _whole(weights: Any) -> Any:
    return {offset: np.rint(9 * values).astype(np.int64) for offset, values in weights.items()}


@family(atol=1e-4)
def grid_crf(of: Shape) -> Any:
    connectivity = 1 + of.seed % len(of.shape)
    options = {"n_iter": 2, "damping": 0.2 * (of.seed % 2)}
    if of.seed % 3 == 0:
        options["compatibility"] = "potts" if of.n_labels == 1 else _steps(of.n_labels)
    return grid_mean_field(of.costs(), _weights(of, connectivity), **options).marginals


def _steps(n: int) -> Any:
    return np.minimum(abs(np.subtract.outer(np.arange(n), np.arange(n))), 3) * 0.5


@family(atol=1e-4, share=2)
def graph_crf(of: Shape) -> Any:
    n = of.width
    i = np.arange(n - 1, dtype=np.int32) if n > 1 else np.zeros(0, np.int32)
    j = np.minimum(i + 1 + (i % 5 == 0), max(n - 1, 0)).astype(np.int32)
    weights = of.random().random(len(i)).astype(np.float32)
    costs = of.costs()[..., :1, :, :].reshape(-1, of.n_labels)[:n]
    options = {} if of.n_labels == 1 or of.seed % 2 else {"compatibility": _steps(of.n_labels)}
    return grid_mean_field(costs, (i, j, weights), n_iter=2, **options).marginals


@family(share=2)
def cut_of_two_labels(of: Shape) -> Any:
    connectivity = (1, len(of.shape))[of.seed % 2]
    costs = np.rint(10 * of.costs(2)).astype(np.int64)
    found = graph_cut(costs, _whole(_weights(of, connectivity)))
    return found.labels, found.energies[-1]


@family(share=2)
def cut_again(of: Shape) -> Any:
    cut = DynamicCut(_whole(_weights(of, (1, len(of.shape))[of.seed % 2])))
    costs = np.rint(10 * of.costs(2)).astype(np.int64)
    first = cut.solve(costs).labels
    return first, cut.solve(costs, of.seeds(2)).labels, cut.solve(costs[..., ::-1]).labels


@family(share=2)
def cut_by_expansion(of: Shape) -> Any:
    connectivity = (1, len(of.shape))[of.seed % 2]
    costs = np.rint(10 * of.costs()).astype(np.int64)
    found = graph_cut(costs, _whole(_weights(of, connectivity)), max_iter=2)
    return found.labels, found.energies, found.lower_bound


@family(share=3)
def cut_by_swap(of: Shape) -> Any:
    costs = np.rint(10 * of.costs(1 + of.n_labels % 5)).astype(np.int64)
    found = graph_cut(costs, _whole(_weights(of, 1)), moves="swap", max_iter=1)
    return found.labels, found.energies


@family(share=2)
def cut_of_regions(of: Shape) -> Any:
    """Messages on arcs, eight labels at a time."""
    regions, image = _regions(of), of.image()
    graph = region_graph(regions)
    i, j, weights = region_weights(graph, region_means(image, regions))
    n_regions = int(regions.max()) + 1
    costs = of.random().integers(0, 40, (n_regions, of.n_labels))
    whole = (i, j, np.rint(9 * weights).astype(np.int64))
    found = graph_cut(costs, whole, max_iter=2)
    return found.labels, found.energies, found.lower_bound


def _regions(of: Shape) -> Any:
    """Region numbers of blocks of a few pixels; every number occurs."""
    places = np.indices(of.shape)
    numbers = sum((axis // 3) * 1009**k for k, axis in enumerate(places))
    return np.unique(numbers, return_inverse=True)[1].reshape(of.shape)


@family(share=3)
def region_statistics(of: Shape) -> Any:
    regions, image = _regions(of), of.image()
    graph = region_graph(regions)
    labels = of.random().integers(-1, of.n_labels, of.shape)
    n_regions = int(regions.max()) + 1
    sums = region_sums(image.astype(np.float32), regions)
    counts = region_labels(regions, labels, n_regions)
    return graph.edges, graph.lengths, sums, region_means(image, regions), *counts


@family(atol=1e-5)
def region_pairs(of: Shape) -> Any:
    regions = np.arange(np.prod(of.shape)).reshape(of.shape) % (of.width + of.seed % 3)
    regions = np.unique(regions, return_inverse=True)[1].reshape(of.shape)
    i, j, weights = dense_region_weights(regions, of.image(), bilateral_width=9.0)
    dense = np.zeros((regions.max() + 1,) * 2)
    dense[i, j] = weights
    return dense
