"""What solvers on grids and on region graphs read off a Scene."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.base import Scene
from hybridseg.validation import as_costs, as_label_map, only_valid


def valid_costs(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """The costs ``(*spatial, L)``; pixels that are not valid have none."""
    return as_costs(only_valid(scene.unary, valid), spatial_shape=scene.shape)


def seed_indices(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[np.int64] | None:
    """The Scene's seeds as indices into its classes, -1 where there is none and where not valid."""
    if scene.seeds is None:
        return None
    values = as_label_map(
        scene.seeds, shape=scene.shape, ignore_label=scene.ignore_label, name="seeds"
    )
    if valid is not None:
        values[~valid] = -1
    classes = np.asarray(scene.classes)
    matches = values[..., np.newaxis] == classes
    unknown = (values >= 0) & ~matches.any(axis=-1)
    if bool(unknown.any()):
        raise ValueError(
            f"seeds holds the label {values[unknown][0]}; expected one of the classes "
            f"{classes.tolist()}, or a negative number where nothing is known."
        )
    return np.where(values >= 0, matches.argmax(axis=-1), -1)


def decided_by_costs(
    valid: NDArray[np.bool_] | None, seeds: NDArray[np.int64] | None
) -> NDArray[np.bool_] | None:
    """Where the costs may decide on the label: at valid pixels without a seed; None: everywhere."""
    if seeds is None:
        return valid
    return seeds < 0 if valid is None else (seeds < 0) & valid


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
