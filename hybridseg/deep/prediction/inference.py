"""From a trained network to scores of a whole image: tiles, test-time views, temperature."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.deep.prediction.evaluation import in_evaluation
from hybridseg.deep.prediction.half import autocast, channels_last
from hybridseg.deep.prediction.outputs import logits_of
from hybridseg.validation import check_number, check_option

Window = tuple[slice, ...]

#: Between which logarithms the temperature is looked for.
LOG_TEMPERATURES = (-4.0, 4.0)

#: Tiles begin at multiples of this, so that a network's strides fall as in the whole image.
_ALIGNMENT = 32


@dataclass(frozen=True)
class Views:
    """Test-time augmentation: an image is scored in several views, whose verdicts are averaged.

    Parameters
    ----------
    scales : sequence of float
        The image is resized by each of these factors, such as ``(0.75, 1.0, 1.25)``.
    mirror : sequence of int
        Axes, counted from the last (-1: left to right), along which the image is mirrored, in all
        combinations: ``(-2, -1)`` makes four views, ``()`` one.
    average : {"proba", "log_proba"}
        "proba": the mean of the views' probabilities. "log_proba": the mean of their logarithms,
        scaled to sum to one, in which one view's certain "no" is a veto.
    mirrored : sequence of int
        The class index that each of 0..L-1 becomes in a mirror image, which an odd number of
        mirrorings makes. Empty: all stay. A segmenter fills it in from its ``mirror_pairs``.

    Examples
    --------
    >>> from hybridseg.unary import Views
    >>> len(Views(scales=(0.75, 1.0), mirror=(-2, -1)))
    8
    """

    scales: tuple[float, ...] = (1.0,)
    mirror: tuple[int, ...] = (-1,)
    average: str = "proba"
    mirrored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("scales", "mirror"):
            given = getattr(self, name)
            if not isinstance(given, tuple | list):
                raise TypeError(f"{name} is a {type(given).__name__}; expected a tuple of numbers.")
        for scale in self.scales:
            check_number(scale, "a scale of scales", minimum=0, strict=True)
        if not len(self.scales):
            raise ValueError("scales is empty; expected at least one factor, such as (1.0,).")
        for axis in self.mirror:
            check_number(axis, "an axis of mirror", integer=True)
        if len(set(self.mirror)) < len(self.mirror) or not set(self.mirror) <= {-3, -2, -1}:
            raise ValueError(
                f"mirror={self.mirror!r}; expected different axes counted from the last: -1, -2, "
                f"and -3 for volumes."
            )
        check_option(self.average, "average", ("proba", "log_proba"))

    def __len__(self) -> int:
        return len(self.scales) * 2 ** len(self.mirror)

    def scores(self, score: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Log-probabilities ``(L, *spatial)`` of an image ``(C, *spatial)``, over all views."""
        axes = [axis for axis in self.mirror if -axis < image.ndim]
        total = torch.zeros(())
        for scale in self.scales:
            size = tuple(max(1, round(extent * scale)) for extent in image.shape[1:])
            resized = _resized(image, size)
            for flipped in _subsets(axes):
                found = score(resized.flip(flipped)).flip(flipped)
                if len(flipped) % 2 and len(self.mirrored):
                    found = found[list(self.mirrored)]
                log_proba = torch.log_softmax(_resized(found, tuple(image.shape[1:])), dim=0)
                total = total + (log_proba if self.average == "log_proba" else log_proba.exp())
        mean = total / (len(self.scales) * 2 ** len(axes))
        return mean if self.average == "log_proba" else mean.clamp(min=1e-12).log()


def as_views(tta: Any, mirrored: tuple[int, ...] = ()) -> Views | None:
    """The views of ``tta=``: None, "mirror" or :class:`Views`; and what classes become in them."""
    views = Views() if isinstance(tta, str) else tta
    return replace(views, mirrored=mirrored) if views is not None and mirrored else views


def _subsets(axes: list[int]) -> Iterator[tuple[int, ...]]:
    return itertools.chain.from_iterable(
        itertools.combinations(axes, k) for k in range(len(axes) + 1)
    )


def _resized(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Values ``(C, *spatial)`` at another spatial size."""
    if tuple(values.shape[1:]) == size:
        return values
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    shrinks = len(size) == 2 and any(
        new < old for new, old in zip(size, values.shape[1:], strict=True)
    )
    return functional.interpolate(values[None], size=size, mode=mode, antialias=shrinks)[0]


@dataclass(frozen=True)
class Inference:
    """How a trained network scores an image of any size.

    Attributes
    ----------
    n_classes : int
    device : torch.device
        Where the network is.
    precision : str
        What the network computes in.
    tile : int, tuple or None
        The extent of the tiles along each axis, which all that passes through the network has
        then; None: the image whole.
    overlap : int or None
        Of neighbouring tiles, at least; None: a quarter of the tile.
    batch_size : int
        Tiles that pass through the network together.
    views : Views or None
    """

    n_classes: int
    device: torch.device
    precision: str = "float32"
    tile: int | tuple[int, ...] | None = None
    overlap: int | None = None
    batch_size: int = 1
    views: Views | None = None

    def scores(
        self, module: nn.Module, image: Tensor, size: tuple[int, ...] | None = None
    ) -> Tensor:
        """Scores ``(L, *spatial)``, higher is better, of an image ``(C, *spatial)``, on the CPU.

        Logits; with several views, log-probabilities. ``size`` is the spatial shape at which the
        network sees the image; None: its own. The module runs in evaluation mode, whichever it is
        in, and stays as it is.
        """
        module = in_evaluation(module)
        if size is not None and size != tuple(image.shape[1:]):
            found = self.scores(module, _resized(image, size))
            return _resized(found, tuple(image.shape[1:]))
        with torch.inference_mode():
            if self.views is None:
                return self._tiled(module, image)
            return self.views.scores(lambda view: self._tiled(module, view), image)

    def costs(
        self,
        module: nn.Module,
        image: Tensor,
        temperature: float = 1.0,
        size: tuple[int, ...] | None = None,
    ) -> NDArray[np.float32]:
        """Costs ``(*spatial, L)``: ``-log_softmax(scores / temperature)``."""
        costs = -torch.log_softmax(self.scores(module, image, size) / temperature, dim=0)
        return np.ascontiguousarray(np.moveaxis(costs.numpy(), 0, -1))

    def _whole(self, module: nn.Module, images: Tensor) -> Tensor:
        """Logits of a batch ``(B, C, *spatial)``, as float32, on the CPU."""
        expected = (len(images), self.n_classes, *images.shape[2:])
        with autocast(self.device, self.precision):
            output = module(channels_last(images.to(self.device)))
        return logits_of(output, expected).float().cpu()

    def _tiled(self, module: nn.Module, image: Tensor) -> Tensor:
        inside = tuple(image.shape[1:])
        tile, overlap = tile_shape(self.tile, self.overlap, inside)
        image = _at_least(image, tile)
        shape = tuple(image.shape[1:])
        windows = list(tile_windows(shape, tile, overlap))
        if len(windows) == 1:
            total = self._whole(module, image[None])[0]
            return total[:, *(slice(extent) for extent in inside)]
        total = torch.zeros((self.n_classes, *shape))
        weight = torch.zeros(shape)
        for start in range(0, len(windows), self.batch_size):
            batch = windows[start : start + self.batch_size]
            logits = self._whole(module, torch.stack([image[:, *window] for window in batch]))
            for window, found in zip(batch, logits, strict=True):
                share = blend_weights(window, shape, overlap)
                total[:, *window] += found * share
                weight[window] += share
        return (total / weight)[:, *(slice(extent) for extent in inside)]


#: Values of a small image that is continued to the size of a tile.
_MOST_PADDED = 2**30


def _at_least(image: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Continue an image ``(C, *spatial)`` at its ends by its last values, to these sides."""
    missing = [max(0, side - n) for side, n in zip(sides, image.shape[1:], strict=True)]
    if not any(missing):
        return image
    if len(image) * math.prod(map(max, sides, image.shape[1:])) > _MOST_PADDED:
        raise ValueError(
            f"tile={sides} is far larger than the image, {tuple(image.shape[1:])}, which would "
            f"have to be continued to that size; take a tile of the size that the network needs."
        )
    ends = [amount for side in reversed(missing) for amount in (0, side)]
    return functional.pad(image[None], ends, mode="replicate")[0]


def tile_shape(
    tile: Any, overlap: int | None, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The extent of tiles, and their overlap, along each axis of an image.

    Raises
    ------
    ValueError
        Another number of axes than the image has, an overlap as large as the tile, or one
        without tiles.
    """
    if tile is None and overlap is not None:
        raise ValueError(
            f"overlap={overlap} without tile; pass the size of the tiles, such as tile=512, or "
            f"overlap=None to take images whole."
        )
    if tile is None:
        return shape, (0,) * len(shape)
    sizes = (tile,) * len(shape) if isinstance(tile, Integral) else tuple(tile)
    if len(sizes) != len(shape) or any(not isinstance(s, Integral) or s < 1 for s in sizes):
        raise ValueError(
            f"tile={tile!r}; expected one number of pixels, at least 1, or one for each of the "
            f"image's {len(shape)} axes."
        )
    extents = tuple(int(size) for size in sizes)
    margins = tuple(size // 4 if overlap is None else int(overlap) for size in extents)
    if any(margin >= size for margin, size in zip(margins, extents, strict=True)):
        raise ValueError(
            f"overlap={overlap} is not smaller than tile={tile!r}; pass a smaller one."
        )
    return extents, margins


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
    """How much a tile's logits count at each of its pixels.

    The outer quarter of an overlap, where a tile sees least beyond the pixel, counts for nothing;
    over the middle half the weight rises linearly to 1. There is no such margin at the image's
    own borders.
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


def fit_temperature(scores: Tensor, labels: Tensor) -> float:
    """The temperature T under which ``softmax(scores / T)`` makes the labels likeliest [1]_.

    Parameters
    ----------
    scores : Tensor, (n, L)
    labels : Tensor of int64, (n,)

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger: On Calibration of Modern Neural Networks.
       ICML 2017, section 4.2.
    """
    exact = scores.double()

    def surprise(log_temperature: float) -> float:
        return float(functional.cross_entropy(exact / math.exp(log_temperature), labels))

    found = minimize_scalar(surprise, bounds=LOG_TEMPERATURES, method="bounded")
    return math.exp(float(found.x))
