"""Families of random walks and level sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridseg.inference import (
    chan_vese,
    morphological_chan_vese,
    morphological_geodesic_active_contour,
    random_walker,
)
from tests.kernels.sweep.cases import (
    Shape,
    family,
)


@family(atol=1e-3)
def walker(of: Shape) -> Any:
    n_labels = min(1 + of.n_labels % 4, max(1, int(np.prod(of.shape)) // 6))  # one by one
    image, seeds, valid = of.image(n_channels=1)[..., 0], of.seeds(n_labels), of.valid()
    if valid is not None:
        seeds[~valid] = -1
        seeds.flat[seeds.size // 2] = 0
    return random_walker(image, seeds, valid=valid, tol=1e-5).proba


@family()
def snakes_of_regions(of: Shape) -> Any:
    image = of.image(n_channels=1)[..., 0] / 255
    image = image.astype((np.float32, np.float64)[of.seed % 2])
    init = (of.random().random(of.shape) < 0.4).astype(np.uint8)
    options = {"init": init, "smoothing": 1 + of.seed % 2, "spatial_ndim": len(of.shape)}
    return morphological_chan_vese(image, 3, **options).labels


@family()
def snakes_of_edges(of: Shape) -> Any:
    edges = of.image(n_channels=1)[..., 0] / 255
    init = (of.random().random(of.shape) < 0.4).astype(np.uint8)
    options = {"init": init, "balloon": of.seed % 3 - 1.0, "spatial_ndim": len(of.shape)}
    return morphological_geodesic_active_contour(edges, 3, threshold=0.5, **options).labels


@family(atol=1e-3, volumes=False)
def level_set(of: Shape) -> Any:
    image = of.image(n_channels=1)[..., 0].astype(np.float64)
    dtype = (np.float32, np.float64)[of.seed % 2]
    return chan_vese(image, max_iter=3, tol=0.0, dtype=dtype).level_set
