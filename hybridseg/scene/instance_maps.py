"""Detection of instance maps, in which each object has its own number, among label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridseg.validation import warn_caller

#: The minimum number of values above 0 in one map that can be objects: for several maps, for a
#: single map (or maps with equal numbers of values), and for maps whose numbering has gaps.
_MIN_OBJECTS, _MIN_OBJECTS_OF_ONE_MAP, _MIN_OBJECTS_WITH_GAPS = 8, 12, 20
#: The minimum number of different values in all maps, if each value occurs in one map only.
_MIN_NUMBERS = 20
#: The maximum numbers of maps that are examined, and of objects in each.
_MAX_MAPS, _MAX_OBJECTS = 8, 64

Reader = Callable[[int], NDArray[np.int64]]


def warn_of_instance_maps(present: Sequence[NDArray[np.int64]], read: Reader) -> None:
    """Warn if label maps seem to number objects, which would be learned as classes.

    Many values alone are not enough. The objects must be numbered from 1 in each map, or
    consecutively through all maps, so that a number does not mean a class. Nine of ten objects
    must be connected. More than half of the pixels must be labeled, unlike in maps of scribbles.

    Parameters
    ----------
    present : sequence of ndarray of int
        The values in each map, sorted, without negative ones.
    read : callable
        ``read(i)`` returns the i-th map, -1 where unknown.
    """
    objects = [values[values > 0] for values in present]
    filled = [i for i, values in enumerate(objects) if len(values)]
    if not filled:
        return
    known = [objects[i] for i in filled]
    shown = filled[:: max(1, len(filled) // _MAX_MAPS)][:_MAX_MAPS]
    if not (_are_counted(known) or (_are_counted_alike(known) and _numbers_move(shown, read))):
        return
    if not _are_of_one_piece({i: objects[i] for i in shown}, read):
        return
    most, numbers = max(map(len, objects)), len(np.unique(np.concatenate(objects)))
    warn_caller(
        f"y seems to number objects: maps hold up to {most} values above 0, each of one connected "
        f"piece. They would be learned as {numbers} classes. To separate objects from background, "
        f"pass [labels > 0 for labels in y]. If the values are classes, ignore this warning.",
    )


def _are_counted(objects: list[NDArray[np.int64]]) -> bool:
    """Return whether the values of the maps (without 0) look like numbers of objects."""
    sizes = np.array([len(values) for values in objects])
    highest = np.array([values[-1] for values in objects])
    numbers = len(np.unique(np.concatenate(objects)))
    if len(objects) == 1:
        return bool(sizes[0] >= _MIN_OBJECTS_OF_ONE_MAP and highest[0] == sizes[0])
    if numbers >= _MIN_NUMBERS and numbers >= 0.9 * sizes.sum() and sizes.mean() >= 3:
        return True  # nearly each number is in one map only
    if sizes.min() == sizes.max():
        return False
    if sizes.max() >= _MIN_OBJECTS and np.mean(highest == sizes) >= 0.9:
        return True  # 1 to n, with another n in each map
    # The numbering has gaps. Maps of the parts of one body share most numbers; these maps do not.
    dense, rare = (sizes >= 0.5 * highest).all(), numbers > sizes.mean() / 0.7
    return bool(sizes.max() >= _MIN_OBJECTS_WITH_GAPS and dense and rare)


def _are_counted_alike(objects: list[NDArray[np.int64]]) -> bool:
    """Return whether every map holds the values 1 to n: objects, or the parts of one body."""
    n_objects = len(objects[0])
    return n_objects >= _MIN_OBJECTS_OF_ONE_MAP and all(
        len(values) == values[-1] == n_objects for values in objects
    )


def _numbers_move(shown: list[int], read: Reader) -> bool:
    """Return whether a number has another place in each map; also if all maps are the same."""
    centers = []
    for i in shown:
        labels = read(i)
        numbers = np.arange(1, labels.max() + 1)
        found = ndimage.center_of_mass(np.ones(labels.shape, np.int8), labels, numbers)
        centers.append(np.array(found) / labels.shape)
    places = np.array(centers)
    moved, spread = places.std(axis=0).mean(axis=0), places.mean(axis=0).std(axis=0)
    return bool(not moved.any() or (moved > 0.3 * np.maximum(spread, 1e-9)).any())


def _are_of_one_piece(objects: Mapping[int, NDArray[np.int64]], read: Reader) -> bool:
    """Return whether nine of ten objects are connected, and most pixels are labeled."""
    whole = examined = known = size = 0
    for i, numbers in objects.items():
        labels = read(i)
        known, size = known + int((labels >= 0).sum()), size + labels.size
        values = numbers[:: max(1, len(numbers) // _MAX_OBJECTS)][:_MAX_OBJECTS]
        places = np.searchsorted(values, labels)
        boxes = ndimage.find_objects(np.where(np.isin(labels, values), places + 1, 0))
        every = np.ones((3,) * labels.ndim, bool)
        for value, box in zip(values, boxes, strict=True):
            whole += ndimage.label(labels[box] == value, every)[1] == 1
        examined += len(values)
    return whole >= 0.9 * examined and 2 * known > size
