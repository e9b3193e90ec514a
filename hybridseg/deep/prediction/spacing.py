"""The spacing of images: a network works on pixels, so its images need the same spacing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from hybridseg.scene.scene import Scene
from hybridseg.validation import as_spacing, warn_caller

Spacing = tuple[float, ...]

#: The largest ratio of two spacings that count as equal. Those of one scanner may differ slightly.
_MAX_RATIO = 1.05

_ADVICE = (
    "a network ignores the spacing. Pass spacing={spacing} to the segmenter, which then resamples "
    "each image for the network and its scores back; or resample the images"
)


def stated_spacing(scene: Scene, spatial_ndim: int) -> Spacing | None:
    """The spacing of a Scene along each axis; None if the Scene has no spacing."""
    return None if scene.spacing is None else as_spacing(scene.spacing, spatial_ndim)


def common_spacing(
    scenes: Iterable[Scene], spatial_ndim: int, known: Spacing | None = None
) -> Spacing | None:
    """The spacing of the first Scene that has one.

    Parameters
    ----------
    scenes : iterable of Scene
    spatial_ndim : {2, 3}
    known : tuple of float, optional
        The spacing on which the network has been trained so far, which is returned instead.

    Returns
    -------
    tuple of float or None
        None if no Scene has a spacing.

    Warns
    -----
    UserWarning
        A Scene has another spacing.
    """
    first = known
    for position, scene in enumerate(scenes):
        spacing = stated_spacing(scene, spatial_ndim)
        if first is None:
            first = spacing
        elif spacing is not None and not _are_alike(first, spacing):
            warn_caller(
                f"X[{position}] has spacing={_short(spacing)}, but others have {_short(first)}: "
                f"{_ADVICE.format(spacing=_short(first))}.",
            )
            break
    return first


def warn_of_another(scene: Scene, known: Spacing | None) -> None:
    """Warn if a Scene's spacing is not the one on which the network was trained.

    Warns
    -----
    UserWarning
        The spacings differ by more than 5 percent along an axis.
    """
    if known is None:
        return
    spacing = stated_spacing(scene, len(known))
    if spacing is not None and not _are_alike(known, spacing):
        warn_caller(
            f"an image has spacing={_short(spacing)}, but the network was trained on "
            f"{_short(known)}: {_ADVICE.format(spacing=_short(known))}.",
        )


def zoom_of(scene: Scene, target: Any, spatial_ndim: int) -> Spacing:
    """The Scene's spacing divided by the ``target`` spacing, along each axis.

    It is 1 along each axis if ``target`` is None or the Scene has no spacing.
    """
    spacing = None if target is None else stated_spacing(scene, spatial_ndim)
    if spacing is None:
        return (1.0,) * spatial_ndim
    wanted = as_spacing(target, spatial_ndim)
    return tuple(own / seen for own, seen in zip(spacing, wanted, strict=True))


def zoomed_shape(shape: tuple[int, ...], zoom: Spacing) -> tuple[int, ...]:
    """The spatial shape of an image after it is enlarged by the factors ``zoom``.

    Raises
    ------
    ValueError
        The image would have more than 4096 times as many pixels.
    """
    sides = tuple(max(1, round(side * by)) for side, by in zip(shape, zoom, strict=True))
    if math.prod(sides) > 4096 * math.prod(shape):
        raise ValueError(
            f"an image of shape {shape} would be resampled to shape {sides} for the network; "
            f"expected the parameter spacing in the same unit as the spacing of the Scenes: pass "
            f"both in millimeters, for example."
        )
    return sides


def _are_alike(first: Spacing, second: Spacing) -> bool:
    """Whether two spacings are nearly equal along every axis."""
    return all(
        max(one, other) <= _MAX_RATIO * min(one, other)
        for one, other in zip(first, second, strict=True)
    )


def _short(spacing: Spacing) -> str:
    """A spacing as text with four digits."""
    return f"({', '.join(f'{step:.4g}' for step in spacing)})"
