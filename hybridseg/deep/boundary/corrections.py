"""The corrections of a network in the band of an image, window by window."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hybridseg.deep.boundary.band import Singles, Surroundings, windows
from hybridseg.deep.boundary.network import BoundaryNetwork
from hybridseg.deep.prediction.device import device_of
from hybridseg.scene.costs import proba_from_costs

#: The extent of a window along each axis, in pixels, by the number of axes.
_SIDES = {2: 96, 3: 48}

#: The smallest probability whose logarithm is taken.
_MIN_PROBABILITY = np.float32(1e-12)


def corrections(
    network: BoundaryNetwork, around: Surroundings, *, side: int | None = None
) -> Singles:
    """Compute what is added to the log-probabilities of the pixels of the band.

    Parameters
    ----------
    network : BoundaryNetwork
    around : Surroundings
    side : int, optional
        The extent of the windows that pass through the network one after another. It bounds the
        memory and does not change the result, except for rounding.

    Returns
    -------
    ndarray of float32, (n, L)
        One row for each pixel of the band, in the order of ``around.band``; 0 for labels that are
        no candidates.
    """
    ndim = len(around.shape)
    device, reach = device_of(network), network.reach
    numbers = np.full(around.shape, -1, np.int64)
    numbers[around.band] = np.arange(np.count_nonzero(around.band))
    found = np.zeros((np.count_nonzero(around.band), around.proba.shape[-1]), np.float32)
    for box in windows(around.shape, side or _SIDES[ndim]):
        inside = around.band[box]
        if not inside.any():
            continue
        starts = tuple(part.start for part in box)
        sides = tuple(part.stop - part.start for part in box)
        inputs = [
            torch.from_numpy(array)[None].to(device) for array in around.seen(starts, sides, reach)
        ]
        with torch.inference_mode():
            output = network(*inputs)[0]
        values = np.moveaxis(output.cpu().numpy(), 0, -1)
        found[numbers[box][inside]] = (values * around.candidates[box])[inside]
    return found


def corrected(around: Surroundings, added: Singles, strength: float) -> Singles:
    """Return the probabilities (*spatial, L) after corrections at a strength from 0 to 1.

    Pixels outside of the band keep their probabilities, and with strength 0 all pixels do.
    """
    found = around.proba.copy()
    if strength > 0 and len(added):
        found[around.band] = corrected_band(around, added, strength)
    return found


def corrected_band(around: Surroundings, added: Singles, strength: float) -> NDArray[np.float32]:
    """Return the probabilities (n, L) of the pixels of the band after corrections."""
    before = np.log(np.maximum(around.proba[around.band], _MIN_PROBABILITY))
    return proba_from_costs(-(before + np.float32(strength) * added))
