"""Features of a network, reduced to the few dimensions that the lattice of a kernel can have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

try:
    import torch
except ImportError as error:
    raise ImportError("NetworkFeatures needs PyTorch: pip install hybridseg[deep]") from error
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.arguments import random_generator, read_only, restored_on_error
from hybridseg.deep.features import DeepFeatures
from hybridseg.deep.kept_maps import kept_map
from hybridseg.deep.prediction.device import device_of
from hybridseg.deep.prediction.evaluation import in_evaluation
from hybridseg.deep.training.identity import described
from hybridseg.features.boxes import boxes
from hybridseg.features.pixels import as_scaled_colors
from hybridseg.scene.sequences import as_scenes
from hybridseg.space import settled
from hybridseg.validation import as_mask, as_numbers, as_singles, as_spacing, check_number

#: The approximate number of pixels whose features are in memory at once.
_MAX_PART_PIXELS = 1 << 18
#: Directions with a smaller part of the variance than this have no variance but rounding.
_MIN_VARIANCE = 1e-9


class NetworkFeatures(BaseEstimator):
    """A few features of every pixel from a network, for the kernel of a dense CRF.

    A Gaussian kernel of color joins pixels of one color, and a kernel of a network's features joins
    pixels of similar texture and context. A lattice is exact and quick in few dimensions only, so
    the features are reduced by principal components, which ``fit`` finds on images without labels.
    Pass the fitted object to :class:`hybridseg.pairwise.FeatureKernel`:
    ``DenseCRF(kernels=[FeatureKernel(3.0, NetworkFeatures(position_width=40).fit(X))])``.

    Parameters
    ----------
    features : callable or torch.nn.Module, optional
        Default: ``DeepFeatures(strides=(4, 8), classical=False)``, an EfficientNet-Lite0 with
        weights of ImageNet. A callable ``features(colors)`` takes colors (*spatial, C) on the scale
        0..255 and returns features (*spatial, F); it may have a method ``part`` as
        :class:`hybridseg.DeepFeatures` and :class:`hybridseg.features.PixelFeatures`. A module
        takes images (1, C, H, W) with colors 0..255 and returns a map (1, F, h, w), which is
        upsampled; the planes of a volume pass through it one by one. For a layer of a torchvision
        model, standardize the images and cut the model with
        ``torchvision.models.feature_extraction``.
    n_components : int, default=4
        The number of principal components. With the position, the lattice has two dimensions more
        (three in a volume); use at most 6 dimensions in total, because time and error grow.
    feature_width : float, default=0.5
        The standard deviation of the kernel along each component, as a multiple of the component's
        standard deviation over the images of ``fit``. Smaller values separate more.
    position_width : float, optional
        The standard deviation of the distance, in the unit of ``spacing`` (pixels without one).
        None: the kernel joins pixels anywhere in the image. A tenth to a quarter of the image
        keeps it local.
    max_samples : int, default=20000
        The number of pixels on which components are found, evenly from all images.
    random_state : int, RandomState instance, Generator or None, default=0
        Chooses these pixels.

    Attributes
    ----------
    mean_ : ndarray of float32, (F,)
        The means of the network's features.
    projection_ : ndarray of float32, (F, n_components)
        ``(features - mean_) @ projection_`` are components of unit standard deviation.
    explained_variance_ratio_ : ndarray of float, (n_components,)
        The part of the variance of the standardized features that each component has.

    Notes
    -----
    Features are standardized before the components are found, because maps of different depths have
    different scales. The components of the last images are kept in memory (256 MB), if the network
    is a module, an estimator or a function, because learning asks for them in each step.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.deep import NetworkFeatures
    >>> from hybridseg.features import PixelFeatures
    >>> X = [np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)]
    >>> model = NetworkFeatures(PixelFeatures(), n_components=3, position_width=5.0).fit(X)
    >>> model(np.zeros((8, 9, 3))).shape  # three components, x and y
    (8, 9, 5)
    """

    mean_: NDArray[np.float32]
    projection_: NDArray[np.float32]
    explained_variance_ratio_: NDArray[np.float64]

    def __init__(
        self,
        features: Callable[[NDArray[np.float32]], ArrayLike] | nn.Module | None = None,
        *,
        n_components: int = 4,
        feature_width: float = 0.5,
        position_width: float | None = None,
        max_samples: int = 20_000,
        random_state: Any = 0,
    ) -> None:
        self.features = features
        self.n_components = n_components
        self.feature_width = feature_width
        self.position_width = position_width
        self.max_samples = max_samples
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the principal components of the network's features.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            A parameter or an image is not as described, or the features have fewer independent
            directions than ``n_components``.
        """
        self._check()
        with restored_on_error(self):
            random = random_generator(self.random_state)
            scenes = as_scenes(X)
            most = -(-int(self.max_samples) // len(scenes))
            rows = np.concatenate([self._sampled(scene, most, random) for scene in scenes])
            mean, deviation = rows.mean(axis=0), rows.std(axis=0)
            deviation[deviation <= 1e-6 * np.abs(mean) + 1e-30] = np.inf  # a constant feature
            standard = (rows - mean) / deviation
            variances, axes = np.linalg.eigh(standard.T @ standard / len(standard))
            variances, axes = variances[::-1], axes[:, ::-1]
            n_found = int(np.sum(variances > _MIN_VARIANCE * max(1.0, variances.sum())))
            if n_found < self.n_components:
                raise ValueError(
                    f"n_components={self.n_components}, but the features of these images vary in "
                    f"{n_found} independent directions: pass fewer components, or more images."
                )
            axes, kept = axes[:, : self.n_components], variances[: self.n_components]
            largest = np.abs(axes).argmax(axis=0)  # components have no sign of their own
            axes = axes * np.sign(axes[largest, np.arange(len(kept))])
            self.mean_ = mean.astype(np.float32)
            scales = deviation[:, np.newaxis] * np.sqrt(kept)
            self.projection_ = (axes / scales).astype(np.float32)
            self.explained_variance_ratio_ = kept / variances.sum()
        return self

    def __call__(
        self, colors: ArrayLike, spacing: Sequence[float] | float | None = None
    ) -> NDArray[np.float32]:
        """Return the features of every pixel, divided by the widths of the kernel.

        Parameters
        ----------
        colors : array-like, (H, W, C) or (D, H, W, C)
            Colors on the scale 0..255.
        spacing : float or sequence of float, optional
            The distance between neighboring pixels along each axis.

        Returns
        -------
        ndarray of float32, (*spatial, n_components) or (*spatial, n_components + n_axes)
            The components divided by ``feature_width``; with ``position_width``, also the
            positions divided by it, those of the last axis first.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            ``fit`` was not called.
        TypeError, ValueError
            A parameter or an argument is not as described, or the network returns another number of
            features than in ``fit``.
        """
        check_is_fitted(self, "projection_")
        self._check()
        given = as_scaled_colors(colors)
        shape = given.shape[:-1]
        steps = as_spacing(spacing, len(shape))
        settings = self._settings(steps)
        found = (
            self._components(given, steps)
            if settings is None
            else kept_map(settings, given, lambda: self._components(given, steps))
        )
        found /= np.float32(self.feature_width)
        if self.position_width is None:
            return found
        rates = [settled(step / float(self.position_width)) for step in steps]
        places = np.indices(shape, dtype=np.float32)
        positions = [place * np.float32(rate) for place, rate in zip(places, rates, strict=True)]
        return np.concatenate([found, np.stack(positions[::-1], axis=-1)], axis=-1)

    def _check(self) -> None:
        """Refuse parameters that are not as described."""
        check_number(self.n_components, "n_components", minimum=1, integer=True)
        check_number(self.max_samples, "max_samples", minimum=2, integer=True)
        check_number(self.feature_width, "feature_width", minimum=0, strict=True)
        if self.position_width is not None:
            check_number(self.position_width, "position_width", minimum=0, strict=True)
        if self.features is not None and (
            not callable(self.features) or isinstance(self.features, type)
        ):
            raise TypeError(
                f"features={self.features!r}; expected a torch.nn.Module, or a callable from "
                f"colors to features such as hybridseg.DeepFeatures(classical=False)."
            )

    def _known(self) -> Any:
        return (
            DeepFeatures(strides=(4, 8), classical=False)
            if self.features is None
            else self.features
        )

    def _settings(self, spacing: tuple[float, ...]) -> str | None:
        """What components depend on besides the colors; None if the network may be any object."""
        network: Any = self._known()
        if isinstance(network, BaseEstimator):
            network = [type(network), network.get_params(deep=False)]
        elif not isinstance(network, nn.Module) and not hasattr(network, "__code__"):
            return None
        return described([network, self.mean_, self.projection_, spacing])

    def _sampled(self, scene: Any, most: int, random: np.random.Generator) -> NDArray[np.float64]:
        """The features (n, F) of random valid pixels of a Scene."""
        colors = scene.filled_colors
        shape = colors.shape[:-1]
        steps = as_spacing(scene.spacing, len(shape))
        inside = np.ones(shape, bool) if scene.valid is None else as_mask(scene.valid, shape)
        places = np.flatnonzero(inside)
        if len(places) > most:
            places = np.sort(random.choice(places, most, replace=False))
        chosen = np.zeros(shape, bool)
        chosen.ravel()[places] = True
        parts = [part[chosen[box]] for box, part in self._parts(colors, steps)]
        return np.concatenate(parts).astype(np.float64)

    def _components(
        self, colors: NDArray[np.float32], spacing: tuple[float, ...]
    ) -> NDArray[np.float32]:
        """The components (*spatial, n_components) of an image."""
        n_features, n_found = self.projection_.shape
        found = np.empty((*colors.shape[:-1], n_found), np.float32)
        for box, part in self._parts(colors, spacing):
            if part.shape[-1] != n_features:
                raise ValueError(
                    f"features has {part.shape[-1]} columns for this image; expected "
                    f"{n_features}, as in fit: pass images with the same channels and axes."
                )
            found[box] = (part - self.mean_) @ self.projection_
        return found

    def _parts(self, colors: NDArray[np.float32], spacing: tuple[float, ...]) -> Any:
        """Yield boxes of the image, and their features (*sides, F)."""
        network, shape = self._known(), colors.shape[:-1]
        if hasattr(network, "part") and not isinstance(network, nn.Module):
            for box in boxes(shape, spacing, _MAX_PART_PIXELS):
                yield box, network.part(colors, box, spacing)
            return
        if isinstance(network, nn.Module):
            found = _mapped(in_evaluation(network), colors)
        else:
            found = as_numbers(network(read_only(colors)), "features(colors)")
            if found.ndim != colors.ndim or found.shape[:-1] != shape or not found.shape[-1]:
                raise ValueError(
                    f"features(colors) has shape {found.shape}; expected {(*shape, 'F')}: F >= 1 "
                    f"features for each pixel."
                )
        yield (slice(None),) * len(shape), as_singles(found, "features(colors)")


def _mapped(network: nn.Module, colors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map of a module, upsampled to the pixels (*spatial, F), plane by plane."""
    planes = colors.reshape(-1, *colors.shape[-3:])
    found = []
    for plane in planes:
        images = torch.from_numpy(np.array(np.moveaxis(plane, -1, 0), order="C"))[None]
        with torch.inference_mode():
            maps = network(images.to(device_of(network)))
            if not isinstance(maps, Tensor) or maps.ndim != 4 or len(maps) != 1:
                what = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
                raise ValueError(
                    f"features(images) returns {what}; expected a map (1, F, h, w): choose one "
                    f"layer of the network."
                )
            pixels = functional.interpolate(
                maps.float(), size=list(plane.shape[:2]), mode="bilinear"
            )
        found.append(pixels[0].movedim(0, -1).cpu().numpy())
    return np.stack(found).reshape(*colors.shape[:-1], -1)
