"""Spacing: networks see pixels and no distances, so they need images of one spacing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from hybridseg.scene.scene import Scene
from hybridseg.validation import as_spacing, warn_caller

Spacing = tuple[float, ...]

#: The largest ratio of two spacings, as of one scanner, that count as equal.
_MAX_RATIO = 1.05

_CURE = (
    "a network sees pixels, whatever their size. Pass spacing={spacing} to the segmenter, which "
    "then resamples each image for the network, and its scores back; or resample the images"
)


def stated_spacing(scene: Scene, spatial_ndim: int) -> Spacing | None:
    """The spacing of a Scene; None where it states none."""
    return None if scene.spacing is None else as_spacing(scene.spacing, spatial_ndim)


def common_spacing(
    scenes: Iterable[Scene], spatial_ndim: int, known: Spacing | None = None
) -> Spacing | None:
    """The spacing of the first Scene that states one.

    Parameters
    ----------
    scenes : iterable of Scene
    spatial_ndim : int
    known : tuple of float, optional
        The spacing that the network has been trained on so far.

    Warns
    -----
    UserWarning
        Others state another one.
    """
    first = known
    for position, scene in enumerate(scenes):
        spacing = stated_spacing(scene, spatial_ndim)
        if first is None:
            first = spacing
        elif spacing is not None and not _are_alike(first, spacing):
            warn_caller(
                f"X[{position}] has spacing={_short(spacing)}, but others have {_short(first)}: "
                f"{_CURE.format(spacing=_short(first))}.",
            )
            break
    return first


def warn_of_another(scene: Scene, known: Spacing | None) -> None:
    """Warn where a Scene's spacing is not the one that a network was trained on.

    Warns
    -----
    UserWarning
        By more than a few percent.
    """
    if known is None:
        return
    spacing = stated_spacing(scene, len(known))
    if spacing is not None and not _are_alike(known, spacing):
        warn_caller(
            f"an image has spacing={_short(spacing)}, but the network was trained on "
            f"{_short(known)}: {_CURE.format(spacing=_short(known))}.",
        )


def zoom_of(scene: Scene, target: Any, spatial_ndim: int) -> Spacing:
    """The extent of a Scene's pixel along each axis, in pixels of the ``target`` spacing.

    Ones without a target, and where the Scene states no spacing.
    """
    spacing = None if target is None else stated_spacing(scene, spatial_ndim)
    if spacing is None:
        return (1.0,) * spatial_ndim
    wanted = as_spacing(target, spatial_ndim)
    return tuple(own / seen for own, seen in zip(spacing, wanted, strict=True))


def zoomed_shape(shape: tuple[int, ...], zoom: Spacing) -> tuple[int, ...]:
    """The extent of an image at another spacing.

    Raises
    ------
    ValueError
        It is thousands of times as large.
    """
    sides = tuple(max(1, round(side * by)) for side, by in zip(shape, zoom, strict=True))
    if math.prod(sides) > 4096 * math.prod(shape):
        raise ValueError(
            f"an image of shape {shape} is {sides} at the network's spacing; expected spacing in "
            f"the unit of the Scenes' own."
        )
    return sides


def _are_alike(first: Spacing, second: Spacing) -> bool:
    return all(
        max(one, other) <= _MAX_RATIO * min(one, other)
        for one, other in zip(first, second, strict=True)
    )


def _short(spacing: Spacing) -> str:
    return f"({', '.join(f'{step:.4g}' for step in spacing)})"
