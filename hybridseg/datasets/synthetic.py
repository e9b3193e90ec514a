"""Synthetic scenes: images of overlapping shapes with exact label maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.utils import Bunch, check_random_state

from hybridseg.validation import as_numbers, check_number

_EDGE_BLUR = 0.8  # standard deviation in pixels of the blur of a lens
_ILLUMINATION = 0.25  # relative gain in brightness from the center to the brighter side
_OBJECT_JITTER = 0.03  # standard deviation of the color shift of each shape
_APPEARANCE_SEED = 20110612  # colors and gratings of the classes

#: The maximum number of scenes, of classes and of channels.
_MAX_COUNT = 10**5
#: The maximum number of values in all images, and in all gratings.
_MAX_VALUES = 2**32


def make_scenes(
    n_scenes: int = 8,
    *,
    shape: Sequence[int] = (96, 128),
    n_classes: int = 4,
    n_channels: int = 3,
    noise: float = 0.15,
    texture: float = 0.08,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Draw images (or volumes) of overlapping ellipses, polygons and thin stripes.

    Each class has its own color and grating. They depend on ``n_classes``, ``n_channels`` and the
    number of axes only, so a model can train on scenes of one seed and be tested on scenes of
    another. Light from one side, soft edges and noise make single pixels ambiguous: pixelwise
    classification results in noisy label maps, which pairwise terms can smooth. The thin stripes
    show what smoothing destroys.

    Parameters
    ----------
    n_scenes : int
        Number of scenes. The first k scenes of a seed do not depend on ``n_scenes``.
    shape : (H, W) or (D, H, W)
        Size of each scene in pixels; three numbers give volumes. If a side is shorter than about 32
        pixels, shapes are only a few pixels large.
    n_classes : int, at least 2
        Number of classes; label 0 is the background. A class may be hidden in some scenes.
    n_channels : int
        Number of channels of the images; with fewer, the classes are harder to distinguish.
    noise : float
        Standard deviation of the white noise, as a fraction of the full scale. 0.05 is easy; at 0.3
        a classifier cannot recognize the class of a single pixel from its color.
    texture : float
        Amplitude of the gratings, as a fraction of the full scale. 0 means uniform colors.
    random_state : int, RandomState or None
        Seed of the layouts, the light and the noise.

    Returns
    -------
    Bunch
        ``images`` : list of uint8 arrays (*shape, n_channels).
        ``labels`` : list of int32 arrays (*shape,), values 0 .. n_classes - 1.
        ``classes`` : list of str, the names of the classes.

    Raises
    ------
    TypeError, ValueError
        A parameter is out of its range; the message names it.

    Examples
    --------
    >>> from hybridseg.datasets import make_scenes
    >>> scenes = make_scenes(2, shape=(48, 64), random_state=0)
    >>> scenes.images[0].shape, scenes.labels[0].shape, scenes.classes
    ((48, 64, 3), (48, 64), ['background', 'class 1', 'class 2', 'class 3'])
    """
    for value, name, minimum in (
        (n_scenes, "n_scenes", 1),
        (n_classes, "n_classes", 2),
        (n_channels, "n_channels", 1),
    ):
        check_number(value, name, minimum=minimum, maximum=_MAX_COUNT, integer=True)
    check_number(noise, "noise", minimum=0.0)
    check_number(texture, "texture", minimum=0.0)
    n_scenes, n_classes, n_channels = int(n_scenes), int(n_classes), int(n_channels)
    sides = _checked_shape(shape)
    if math.prod(sides) * n_channels * max(n_classes, n_scenes) > _MAX_VALUES:
        raise ValueError(
            f"shape={shape!r}, n_channels={n_channels}, n_classes={n_classes} and "
            f"n_scenes={n_scenes} make more than {_MAX_VALUES:g} values: pass smaller numbers."
        )
    colors = _class_colors(n_classes, n_channels)
    gratings = texture * _class_gratings(sides, n_classes, n_channels)
    seeds = check_random_state(random_state).randint(2**31 - 1, size=n_scenes)
    images, maps = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        labels, parts = _layout(sides, n_classes, rng)
        images.append(_render(labels, parts, colors, gratings, noise, rng))
        maps.append(labels)
    names = ["background", *(f"class {index}" for index in range(1, n_classes))]
    return Bunch(images=images, labels=maps, classes=names)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    sides = tuple(as_numbers(shape, "shape", expected="(H, W) or (D, H, W)").ravel().tolist())
    if len(sides) not in (2, 3):
        raise ValueError(f"shape={shape!r}; expected (H, W) or (D, H, W).")
    return tuple(int(check_number(side, "shape", minimum=1, integer=True)) for side in sides)


def _class_colors(n_classes: int, n_channels: int) -> NDArray[np.float64]:
    """Draw colors (L, C); each is the candidate that is farthest from the previous colors."""
    rng = np.random.default_rng([_APPEARANCE_SEED, n_classes, n_channels])
    colors = rng.uniform(0.3, 0.7, (1, n_channels))
    while len(colors) < n_classes:
        candidates = rng.uniform(0.3, 0.7, (32, n_channels))
        gaps = np.linalg.norm(candidates[:, np.newaxis] - colors, axis=-1).min(axis=1)
        colors = np.vstack([colors, candidates[gaps.argmax()]])
    return colors


def _class_gratings(shape: tuple[int, ...], n_classes: int, n_channels: int) -> NDArray[np.float64]:
    """Draw plane waves (L, *shape, C) with periods from 4 to 10 pixels in random directions."""
    rng = np.random.default_rng([_APPEARANCE_SEED, n_classes, n_channels, len(shape)])
    directions = rng.standard_normal((n_classes, len(shape)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    waves = 2 * np.pi / np.linspace(4, 10, n_classes)[:, np.newaxis] * directions
    signs = rng.choice([-1.0, 1.0], (n_classes, n_channels))
    phases = np.tensordot(waves, np.indices(shape), axes=1)
    gratings: NDArray[np.float64] = np.einsum("l...,lc->l...c", np.sin(phases), signs)
    return gratings


def _layout(
    shape: tuple[int, ...], n_classes: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Paint shapes over each other; return the labels and the shape of each pixel (0: none)."""
    labels, parts = np.zeros((2, *shape), dtype=np.int32)
    positions = np.indices(shape).reshape(len(shape), -1).T + 0.5
    classes = np.concatenate([np.arange(1, n_classes), rng.integers(1, n_classes, 4)])
    for part, label in enumerate(rng.permutation(classes), start=1):
        inside = _random_shape(positions, shape, rng).reshape(shape)
        labels[inside], parts[inside] = label, part
    return labels, parts


def _random_shape(
    positions: NDArray[Any], shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw an ellipse, polygon or stripe (ellipsoid, polytope or rod in a volume), a mask (N,)."""
    rank = len(shape)
    scale = float(np.prod(shape)) ** (1 / rank)
    turn = np.linalg.qr(rng.standard_normal((rank, rank))).Q
    offsets = (positions - rng.uniform(0.1, 0.9, rank) * shape) @ turn
    radius = rng.uniform(0.12, 0.28) * scale
    kind = rng.choice(["ellipse", "polygon", "stripe"], p=[0.4, 0.35, 0.25])
    inside: NDArray[np.bool_]
    if kind == "ellipse":
        inside = np.linalg.norm(offsets / (radius * rng.uniform(0.6, 1.2, rank)), axis=1) < 1
    elif kind == "polygon":
        normals = rng.standard_normal((rng.integers(4, 9), rank))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        walls = radius * rng.uniform(0.6, 1.0, len(normals))
        near = np.linalg.norm(offsets, axis=1) < 1.4 * radius  # the half-spaces may be unbounded
        inside = (offsets @ normals.T < walls).all(axis=1) & near
    else:
        thin = rng.uniform(1.5, 3.5)
        inside = (np.abs(offsets[:, 1:]) < thin).all(axis=1) & (np.abs(offsets[:, 0]) < 2 * radius)
    return inside


def _render(
    labels: NDArray[np.int32],
    parts: NDArray[np.int32],
    colors: NDArray[np.float64],
    gratings: NDArray[np.float64],
    noise: float,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Add color, grating, light, blur and noise, in this order."""
    rank, n_channels = labels.ndim, colors.shape[1]
    jitter = _OBJECT_JITTER * rng.standard_normal((parts.max() + 1, n_channels))
    image = colors[labels] + jitter[parts]
    image += np.take_along_axis(gratings, labels[np.newaxis, ..., np.newaxis], axis=0)[0]
    image *= _light(labels.shape, rng)[..., np.newaxis]
    image = gaussian_filter(image, (*(_EDGE_BLUR,) * rank, 0))
    image += noise * rng.standard_normal(image.shape)
    pixels: NDArray[np.uint8] = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    return pixels


def _light(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    """Draw a linear ramp of brightness around 1 in a random direction."""
    direction = rng.standard_normal(len(shape))
    direction /= np.abs(direction).sum()
    axes = [np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in shape]
    ramp: NDArray[Any] = sum(
        part * axis for part, axis in zip(direction, np.ix_(*axes), strict=True)
    )
    return 1 + _ILLUMINATION * ramp
