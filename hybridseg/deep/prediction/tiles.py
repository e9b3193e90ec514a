"""Sliding windows: the tiles that cover an image, and the weights that blend their logits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

Window = tuple[slice, ...]

#: Tiles begin at multiples of this, so that strided layers sample the same pixels as in the whole
#: image.
_ALIGNMENT = 32


def check_tiles(tile: Any, overlap: int | None) -> None:
    """Refuse tiles and overlaps that are wrong for images with any number of axes.

    Raises
    ------
    ValueError
        A side of the tile is not an integer of at least 1, the overlap is not smaller than the
        tile, or there is an overlap without a tile.
    """
    if tile is None and overlap is not None:
        raise ValueError(
            f"overlap={overlap}, but tile=None; expected both or neither: pass the size of the "
            f"tiles, such as tile=512, or overlap=None for whole images."
        )
    sizes = () if tile is None else (tile,) if isinstance(tile, Integral) else tuple(tile)
    if any(not isinstance(size, Integral) or size < 1 for size in sizes):
        raise ValueError(
            f"tile={tile!r}; expected an integer of at least 1, or one for each axis of the "
            f"images: pass the size in pixels, such as tile=512."
        )
    if any(_margin(size, overlap) >= size for size in sizes):
        raise ValueError(
            f"overlap={overlap}, but tile={tile!r}; expected an overlap smaller than the tile: "
            f"pass a smaller overlap."
        )


def tile_shape(
    tile: Any, overlap: int | None, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The extent of the tiles and their overlap along each axis of an image.

    Raises
    ------
    ValueError
        The tile does not have one number for each axis of the image, or :func:`check_tiles`
        refuses it.
    """
    check_tiles(tile, overlap)
    if tile is None:
        return shape, (0,) * len(shape)
    sizes = (tile,) * len(shape) if isinstance(tile, Integral) else tuple(tile)
    if len(sizes) != len(shape):
        raise ValueError(
            f"tile={tile!r}; expected an integer, or one for each of the {len(shape)} axes of the "
            f"images: pass {len(shape)} sizes in pixels."
        )
    extents = tuple(int(size) for size in sizes)
    return extents, tuple(_margin(size, overlap) for size in extents)


def _margin(size: int, overlap: int | None) -> int:
    """The minimum overlap of tiles with this extent; by default a quarter of it."""
    return size // 4 if overlap is None else int(overlap)


def tile_windows(
    shape: tuple[int, ...], tile: tuple[int, ...], overlap: tuple[int, ...]
) -> Iterator[Window]:
    """Windows of the tile's size that cover an image and overlap by at least ``overlap``.

    The last window along an axis ends at the border of the image, and begins earlier so that it
    has the full size. If the image is smaller than the tile, there is one window of its size.
    """
    axes = []
    for extent, size, margin in zip(shape, tile, overlap, strict=True):
        step = size - margin
        if step >= _ALIGNMENT:
            step -= step % _ALIGNMENT
        last = max(0, extent - size)
        starts = [*range(0, last, step), last]
        axes.append([slice(start, min(start + size, extent)) for start in starts])
    return itertools.product(*axes)


def blend_weights(window: Window, shape: tuple[int, ...], overlap: tuple[int, ...]) -> Tensor:
    """The weights ``(*shape of the window)`` of a tile's logits in the blend.

    A weight is 0 in the outer quarter of an overlap, where the tile shows the least surroundings of
    a pixel, and rises linearly to 1 over the middle half. At the borders of the image it is 1.
    """
    weights = torch.ones(())
    for part, extent, margin in zip(window, shape, overlap, strict=True):
        at = torch.arange(part.start, part.stop) + 0.5
        ramp = torch.ones(part.stop - part.start)
        if margin and part.start > 0:
            ramp = ramp.minimum((at - part.start - margin / 4) / (margin / 2))
        if margin and part.stop < extent:
            ramp = ramp.minimum((part.stop - at - margin / 4) / (margin / 2))
        weights = weights[..., None] * ramp.clamp(min=0)
    return weights
