"""Maps that networks computed of images, kept for the next call with the same image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.scene.deferred import ValueCache

#: Learning and prediction ask for the maps of the same images many times.
_CACHE = ValueCache(budget=256 * 2**20)


def kept_map(
    settings: str,
    colors: NDArray[np.float32],
    compute: Callable[[], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return a map of an image, computed now or by an earlier call in this process.

    Parameters
    ----------
    settings : str
        All that the map depends on besides the colors.
    colors : ndarray of float32, (*spatial, C)
        Compared by a checksum of the values.
    compute : callable
        Returns the map.

    Returns
    -------
    ndarray of float32
        A copy, which the caller may change.
    """
    checksum = hashlib.sha256(np.ascontiguousarray(colors).data).digest()
    key: Any = (settings, colors.shape, checksum)
    return np.array(_CACHE.of_content(key, compute))
