"""Patches around pixels of the band: what a network that corrects labels learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridseg.deep.boundary.band import Mask, Singles, Surroundings

#: The largest size of all patches of a fit, in bytes; there are fewer if they would be larger.
_MAX_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Patch:
    """A window of an image; ``inner`` is the window without the reach of the network.

    Attributes
    ----------
    log_proba : ndarray of float32, (L, *outer)
    nearness : ndarray of float32, (*outer,)
    colors : ndarray of float32, (C, *outer)
    candidates : ndarray of bool, (L, *inner)
    truth : ndarray of int64, (*inner,)
        The index of the true label; -1 where it is unknown, no candidate, or outside the band.
    """

    log_proba: Singles
    nearness: Singles
    colors: Singles
    candidates: Mask
    truth: NDArray[np.int64]

    def turned(self, flips: Sequence[bool], swap: bool) -> Patch:
        """Return the patch mirrored along some axes, and with its last two axes swapped."""

        def turn(array: NDArray[Any]) -> NDArray[Any]:
            first = array.ndim - len(flips)
            found = np.flip(array, tuple(first + axis for axis, flip in enumerate(flips) if flip))
            return found.swapaxes(-1, -2) if swap else found

        return replace(self, **{name: turn(array) for name, array in vars(self).items()})


def n_affordable(n_patches: int, around: Surroundings, side: int, reach: int) -> int:
    """Return the number of patches, or fewer if they would need too much memory."""
    n_values = around.proba.shape[-1] + around.colors.shape[-1] + 1
    return max(
        1, min(n_patches, _MAX_BYTES // (4 * n_values * (side + 2 * reach) ** around.band.ndim))
    )


def draw_patches(
    around: Surroundings,
    truth: NDArray[np.int64],
    n_patches: int,
    *,
    side: int,
    reach: int,
    random: np.random.Generator,
) -> list[Patch]:
    """Draw patches around pixels of the band whose true label is known and a candidate.

    The true label of the pixel in the middle is drawn uniformly among those that occur there, so
    that rare labels are seen often.

    Parameters
    ----------
    around : Surroundings
    truth : ndarray of int, (*spatial,)
        -1 where unknown.
    n_patches : int
    side : int
        The extent of ``inner`` along each axis; beyond the image, the truth is unknown.
    reach : int
        That of the network.
    random : Generator

    Returns
    -------
    list of Patch
        Empty if no pixel fits.
    """
    known = np.where(around.band, truth, -1)
    places = np.argwhere(known >= 0)
    usable = around.candidates[(*places.T, known[known >= 0])]
    known[tuple(places[~usable].T)] = -1
    places = places[usable]
    if not len(places):
        return []
    labels = known[tuple(places.T)]
    present = np.unique(labels)
    of_label = {int(label): np.flatnonzero(labels == label) for label in present}
    found = []
    for _ in range(n_patches):
        members = of_label[int(random.choice(present))]
        middle = places[members[random.integers(len(members))]]
        starts = tuple(
            int(np.clip(at - random.integers(side), 0, max(0, n - side)))
            for at, n in zip(middle, truth.shape, strict=True)
        )
        found.append(_patch(around, known, starts, side, reach))
    return found


def _patch(
    around: Surroundings,
    known: NDArray[np.int64],
    starts: tuple[int, ...],
    side: int,
    reach: int,
) -> Patch:
    sides = (side,) * known.ndim
    box = tuple(slice(start, start + side) for start in starts)
    missing = [(0, side - n) for n in known[box].shape]
    log_proba, nearness, colors = around.seen(starts, sides, reach)
    return Patch(
        log_proba,
        nearness,
        colors,
        np.pad(np.moveaxis(around.candidates[box], -1, 0), [(0, 0), *missing]),
        np.pad(known[box], missing, constant_values=-1),
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches as tensors.

    Attributes
    ----------
    inputs : tuple of Tensor
        The arguments of :class:`hybridseg.deep.boundary.network.BoundaryNetwork`.
    start : Tensor, (B, L, *inner)
        The log-probabilities that are corrected.
    candidates : Tensor of bool, (B, L, *inner)
    truth : Tensor of int, (B, *inner)
    """

    inputs: tuple[Tensor, Tensor, Tensor]
    start: Tensor
    candidates: Tensor
    truth: Tensor

    @classmethod
    def of(cls, patches: Sequence[Patch], device: torch.device) -> Batch:
        """Stack patches of equal shapes."""

        def stacked(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(p, name) for p in patches])).to(device)

        log_proba, truth = stacked("log_proba"), stacked("truth")
        inner = truth.shape[1:]
        reach = (log_proba.shape[-1] - inner[-1]) // 2
        middle = tuple(slice(reach, reach + n) for n in inner)
        return cls(
            (log_proba, stacked("nearness"), stacked("colors")),
            log_proba[(..., *middle)],
            stacked("candidates"),
            truth,
        )
