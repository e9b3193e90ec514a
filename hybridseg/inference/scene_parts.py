"""What solvers on grids and on region graphs read off a Scene."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.base import Scene
from hybridseg.validation import as_costs, as_label_map


def valid_costs(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """The costs ``(*spatial, L)``; pixels that are not valid have none."""
    costs = scene.unary if valid is None else np.where(valid[..., np.newaxis], scene.unary, 0)
    return as_costs(costs, spatial_shape=scene.shape)


def regions_of(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """The Scene's region map, numbered without gaps; -1 outside of all regions."""
    if scene.regions is None:
        raise ValueError(
            "on='regions' needs superpixels, but this Scene has none: let a SuperpixelClassifier "
            "make the costs, pass Scene(..., regions=map), or use on='pixels'."
        )
    regions = as_label_map(scene.regions, shape=scene.shape, name="regions")
    if valid is not None:
        regions[~valid] = -1
    inside = regions >= 0
    regions[inside] = np.unique(regions[inside], return_inverse=True)[1]
    return regions
