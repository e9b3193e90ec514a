"""Tiles: windows that cover an image of any size, and how their logits are blended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

Window = tuple[slice, ...]

#: Tiles begin at multiples of this, so that a network's strides fall as in the whole image.
_ALIGNMENT = 32


def check_tiles(tile: Any, overlap: int | None) -> None:
    """Refuse tiles that are wrong for images of any number of axes.

    Raises
    ------
    ValueError
        The tile has a side that is no integer or is below 1, the overlap is as large as the tile,
        or there is an overlap without a tile.
    """
    if tile is None and overlap is not None:
        raise ValueError(
            f"overlap={overlap} without tile; pass the size of the tiles, such as tile=512, or "
            f"overlap=None to take images whole."
        )
    sizes = () if tile is None else (tile,) if isinstance(tile, Integral) else tuple(tile)
    if any(not isinstance(size, Integral) or size < 1 for size in sizes):
        raise ValueError(
            f"tile={tile!r}; expected one number of pixels, at least 1, or one for each axis of "
            f"the images."
        )
    if any(_margin(size, overlap) >= size for size in sizes):
        raise ValueError(
            f"overlap={overlap} is not smaller than tile={tile!r}; pass a smaller one."
        )


def tile_shape(
    tile: Any, overlap: int | None, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The extent of tiles, and their overlap, along each axis of an image.

    Raises
    ------
    ValueError
        The tile has another number of axes than the image; or it is as :func:`check_tiles` refuses.
    """
    check_tiles(tile, overlap)
    if tile is None:
        return shape, (0,) * len(shape)
    sizes = (tile,) * len(shape) if isinstance(tile, Integral) else tuple(tile)
    if len(sizes) != len(shape):
        raise ValueError(
            f"tile={tile!r}; expected one number of pixels, or one for each of the images' "
            f"{len(shape)} axes."
        )
    extents = tuple(int(size) for size in sizes)
    return extents, tuple(_margin(size, overlap) for size in extents)


def _margin(size: int, overlap: int | None) -> int:
    return size // 4 if overlap is None else int(overlap)


def tile_windows(
    shape: tuple[int, ...], tile: tuple[int, ...], overlap: tuple[int, ...]
) -> Iterator[Window]:
    """Windows of the tile's size that cover an image and overlap as asked, or more.

    The last one along an axis ends where the image does; it begins earlier instead of being
    narrower. Where an image is smaller than the tile, there is one window, of the image's size.
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
    """The weight of a tile's logits at each of its pixels.

    It is 0 in the outer quarter of an overlap, where the tile shows least of what surrounds a
    pixel, and rises linearly to 1 over the middle half. There is no such margin at the image's own
    borders.
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
