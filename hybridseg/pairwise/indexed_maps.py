"""Label maps from which terms are estimated, one at a time, as indices of the classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.scene.sequences import as_items, read_label_source
from hybridseg.validation import as_label_map, as_label_values


def indexed_maps(
    y: Any, classes: ArrayLike, *, ignore_label: int | None = None
) -> tuple[int, int, Iterator[NDArray[np.int64]]]:
    """Return the numbers of maps and of labels, and the maps as indices, -1 where void.

    Indices are in the sorted order of the classes.

    Raises
    ------
    TypeError, ValueError
        ``y`` is not a sequence of label maps, or a map holds a value that is not in ``classes``;
        that is raised when the map is read.
    """
    values = as_label_values(classes, ignore_label=ignore_label)
    sources = as_items(y, "y")
    if not sources:
        raise ValueError("y is empty; expected at least one label map in a list.")
    return len(sources), len(values), _read(sources, values, ignore_label)


def _read(
    sources: Any, values: NDArray[Any], ignore_label: int | None
) -> Iterator[NDArray[np.int64]]:
    for i, source in enumerate(sources):
        labels = as_label_map(read_label_source(source), ignore_label=ignore_label, name=f"y[{i}]")
        if labels.ndim not in (2, 3):
            raise ValueError(
                f"y[{i}] has shape {labels.shape}; expected label maps (H, W) or (D, H, W): wrap a "
                f"single map in a list."
            )
        places = np.minimum(np.searchsorted(values, labels), len(values) - 1)
        unknown = (labels >= 0) & (values[places] != labels)
        if unknown.any():
            found = labels[unknown].min()
            raise ValueError(
                f"y[{i}] holds the label {found}; expected one of classes={values.tolist()}, or a "
                f"negative value for void: add it to classes, or pass ignore_label={found}."
            )
        yield np.where(labels >= 0, places, -1)
