"""Instance maps, told from label maps: every object has a number of its own, no class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridseg.validation import warn_caller

#: So many objects in one picture, at least, are taken for objects and not for classes; where there
#: is only one picture, or numbers are missing, more are needed.
_OBJECTS, _OBJECTS_OF_ONE, _OBJECTS_WITH_GAPS = 8, 12, 20
#: So many objects of all pictures, where each has a number that no other picture has.
_NUMBERS = 20
#: So many pictures are looked at, and so many objects of each.
_LOOKED_AT = 8, 64


Reader = Callable[[int], NDArray[np.int64]]


def warn_of_instance_maps(present: Sequence[NDArray[np.int64]], read: Reader) -> None:
    """Warn where label maps number objects, which would be learned as so many classes.

    It takes more than many values. Objects are counted anew in each picture (or through all of
    them), so that a number stands for no one thing; each is of one piece; and no more than half
    of a map is unknown, as it is with scribbles.

    Parameters
    ----------
    present : sequence of ndarray of int
        The values that each map holds, sorted, without negative ones.
    read : callable
        ``read(i)`` gives the i-th map, -1 where unknown.
    """
    objects = [values[values > 0] for values in present]
    filled = [i for i, values in enumerate(objects) if len(values)]
    if not filled:
        return
    known = [objects[i] for i in filled]
    shown = filled[:: max(1, len(filled) // _LOOKED_AT[0])][: _LOOKED_AT[0]]
    if not (_are_counted(known) or (_are_counted_alike(known) and _wander(shown, read))):
        return
    if not _are_of_one_piece({i: objects[i] for i in shown}, read):
        return
    most, numbers = max(map(len, objects)), len(np.unique(np.concatenate(objects)))
    warn_caller(
        f"y seems to number objects: maps hold up to {most} values above 0, each of one connected "
        f"piece. They would be learned as {numbers} classes. To learn what is an object, pass "
        f"[labels > 0 for labels in y]. Should they be classes, all is well.",
    )


def _are_counted(objects: list[NDArray[np.int64]]) -> bool:
    """Whether the values of maps (without 0) are as if somebody had counted objects."""
    sizes = np.array([len(values) for values in objects])
    highest = np.array([values[-1] for values in objects])
    numbers = len(np.unique(np.concatenate(objects)))
    if len(objects) == 1:
        return bool(sizes[0] >= _OBJECTS_OF_ONE and highest[0] == sizes[0])
    if numbers >= _NUMBERS and numbers >= 0.9 * sizes.sum() and sizes.mean() >= 3:
        return True  # each number is in one picture
    if sizes.min() == sizes.max():
        return False
    if sizes.max() >= _OBJECTS and np.mean(highest == sizes) >= 0.9:
        return True  # 1 to n, and another n in each picture
    # Numbers are missing, and so often that these are no parts of one body, seen again and again.
    dense, rare = (sizes >= 0.5 * highest).all(), numbers > sizes.mean() / 0.7
    return bool(sizes.max() >= _OBJECTS_WITH_GAPS and dense and rare)


def _are_counted_alike(objects: list[NDArray[np.int64]]) -> bool:
    """Whether every map holds the values 1 to n: objects, or parts of one body."""
    n_objects = len(objects[0])
    return n_objects >= _OBJECTS_OF_ONE and all(
        len(values) == values[-1] == n_objects for values in objects
    )


def _wander(shown: list[int], read: Reader) -> bool:
    """Whether what has one number lies elsewhere in each map; or it is one map, again and again."""
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
    """Whether nine of ten objects are connected, in maps of which most is known."""
    whole = looked_at = known = size = 0
    for i, numbers in objects.items():
        labels = read(i)
        known, size = known + int((labels >= 0).sum()), size + labels.size
        values = numbers[:: max(1, len(numbers) // _LOOKED_AT[1])][: _LOOKED_AT[1]]
        places = np.searchsorted(values, labels)
        boxes = ndimage.find_objects(np.where(np.isin(labels, values), places + 1, 0))
        every = np.ones((3,) * labels.ndim, bool)
        for value, box in zip(values, boxes, strict=True):
            whole += ndimage.label(labels[box] == value, every)[1] == 1
        looked_at += len(values)
    return whole >= 0.9 * looked_at and 2 * known > size
