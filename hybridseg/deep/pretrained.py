"""A segmenter with a network that was trained elsewhere; it is not fitted."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

try:
    import torch
except ImportError as error:
    raise ImportError("PretrainedSegmenter needs PyTorch: pip install hybridseg[deep]") from error
from torch import Tensor, nn

from hybridseg.base import IGNORE_LABEL, INTENSITY_RANGE, Interval, Scene, Segmenter, StrOptions
from hybridseg.deep.prediction.device import as_device, device_of
from hybridseg.deep.prediction.evaluation import in_evaluation
from hybridseg.deep.prediction.half import PRECISIONS
from hybridseg.deep.prediction.inference import Inference
from hybridseg.deep.prediction.spacing import common_spacing
from hybridseg.deep.prediction.views import Views
from hybridseg.deep.training.start import convolution_ranks
from hybridseg.networks.adapters import AdaptedNetwork, adapt, logits_of_two, warn_of_proba
from hybridseg.validation import IntensityRange, as_image, as_numbers

__all__ = ["PretrainedSegmenter"]


class PretrainedSegmenter(Segmenter):
    """Segment with a network that was trained elsewhere; its logits become the costs.

    The segmenter counts as fitted from the start, so a pipeline of it and a refiner can predict at
    once. To train a network further, use :class:`hybridseg.DeepSegmenter`.

    Parameters
    ----------
    network : torch.nn.Module
        A network that takes images ``(B, C, *spatial)`` with colors on the scale 0..255 and returns
        logits ``(B, n_outputs, *spatial)``. Use :func:`hybridseg.networks.adapt` for weights that
        expect standardized colors (``statistics="imagenet"``), for the networks of other libraries,
        and for networks that end in a softmax (``output="proba"``). The segmenter never changes the
        network or its mode: if a part of it is in training mode, a twin in evaluation mode that
        shares its weights predicts. So several threads may predict at the same time.
    classes : sequence of int
        The label value of each output of the network, such as ``range(21)``. Outputs with a
        negative value, such as a class "void", are left out. The probabilities of outputs with the
        same value are added. A network for two classes may have one output, the logit of the second
        class.
    n_channels : int
        The number of channels of the images; 1 for gray images, with or without a channel axis.
    spatial_ndim : {2, 3}
        2 for images ``(H, W)``, 3 for volumes ``(D, H, W)``.
    tile, overlap, tta, mirror_pairs, precision
        See :class:`hybridseg.DeepSegmenter`. Volumes usually need a ``tile``.
    spacing : float or sequence of float, optional
        The spacing of the images on which the network was trained. A Scene with another spacing is
        resampled for the network, and its scores are resampled back. None: images are not
        resampled, and a warning names the first image with another spacing.
    device : str, optional
        The device on which the network runs: "cpu", "cuda" (or another device of torch), or "auto"
        for a GPU if there is one. A network on another device is copied. None: the device of its
        parameters.
    intensity_range : {"dtype", "image"} or (low, high)
        How values become colors; see :class:`hybridseg.PixelClassifier`.
    ignore_label : int, optional
        A label value besides the negative ones, such as 255, that ``score`` ignores.

    Attributes
    ----------
    classes_ : ndarray of int, (L,)
        The values of ``classes`` that are not negative, sorted.

    Warns
    -----
    UserWarning
        A prediction finds that the network returns probabilities instead of logits, or that the
        spacings of images differ.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from hybridseg import DenseCRF, PretrainedSegmenter
    >>> from hybridseg.networks import ESPNet, adapt
    >>> network = adapt(ESPNet(n_classes=12), **ESPNet.inputs["camvid"])  # weights="....pth"
    >>> model = make_pipeline(PretrainedSegmenter(network, [*range(11), -1]), DenseCRF())
    >>> model.predict([np.zeros((36, 48, 3), np.uint8)])[0].shape
    (36, 48)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "network": [nn.Module],
        "classes": ["array-like"],
        "n_channels": [Interval(Integral, 1, None, closed="left")],
        "spatial_ndim": [Interval(Integral, 2, 3, closed="both")],
        "tile": [Interval(Integral, 1, None, closed="left"), tuple, list, None],
        "overlap": [Interval(Integral, 0, None, closed="left"), None],
        "tta": [StrOptions({"mirror"}), Views, None],
        "mirror_pairs": [tuple, list],
        "precision": [StrOptions(set(PRECISIONS))],
        "spacing": [Real, "array-like", None],
        "device": [str, None],
        "intensity_range": INTENSITY_RANGE,
        "ignore_label": IGNORE_LABEL,
    }

    spacing: Any = None  # for models that were saved before this parameter existed

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[int],
        *,
        n_channels: int = 3,
        spatial_ndim: int = 2,
        tile: int | tuple[int, ...] | None = None,
        overlap: int | None = None,
        tta: Any = None,
        mirror_pairs: Sequence[Sequence[int]] = (),
        precision: str = "float32",
        spacing: Any = None,
        device: str | None = None,
        intensity_range: IntensityRange = "dtype",
        ignore_label: int | None = None,
    ) -> None:
        self.network = network
        self.classes = classes
        self.n_channels = n_channels
        self.spatial_ndim = spatial_ndim
        self.tile = tile
        self.overlap = overlap
        self.tta = tta
        self.mirror_pairs = mirror_pairs
        self.precision = precision
        self.spacing = spacing
        self.device = device
        self.intensity_range = intensity_range
        self.ignore_label = ignore_label

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Check the parameters; the network does not change.

        Parameters
        ----------
        X, y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            A parameter is not as described, or does not fit the network or the device.
        """
        self._validate_params()
        if len(self.classes_) < 2:
            raise ValueError(
                f"classes={self.classes!r}; expected at least two different values that are >= 0: "
                f"pass one label value for each output."
            )
        ranks = convolution_ranks(self.network)
        if ranks and self.spatial_ndim not in ranks:
            raise ValueError(
                f"spatial_ndim={self.spatial_ndim}, but the network's convolutions have "
                f"{max(ranks)} axes; expected an equal number: pass spatial_ndim=2 for images, 3 "
                f"for volumes."
            )
        Inference.of(self).check(self.spatial_ndim, self.classes_, self._place())
        return self

    def transform(self, X: Any) -> Any:
        """Convert images to Scenes whose costs are computed when they are first read.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of Scene
            Input for a refiner such as :class:`hybridseg.DenseCRF`.

        Raises
        ------
        TypeError, ValueError
            A parameter is not as described, or the images do not fit the network.
        """
        placed = copy.copy(self.fit())
        placed.network = in_evaluation(self.network)
        if self._place() != device_of(self.network):
            placed.network = copy.deepcopy(placed.network).to(self._place())
        scenes = super(PretrainedSegmenter, placed).transform(X)
        if self.spacing is None:
            common_spacing(scenes, self.spatial_ndim)
        return scenes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def classes_(self) -> NDArray[np.int64]:  # type: ignore[override]
        values = as_numbers(self.classes, "classes", expected="one integer for each output")
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise ValueError(
                f"classes={self.classes!r}; expected one integer for each output of the network: "
                f"pass a sequence such as range(21)."
            )
        return np.unique(values[values >= 0]).astype(np.int64)

    @property
    def n_channels_in_(self) -> int:  # type: ignore[override]
        return self.n_channels

    @property
    def spatial_ndim_(self) -> int:  # type: ignore[override]
        return self.spatial_ndim

    def _place(self) -> torch.device:
        """The device on which the network runs."""
        return device_of(self.network) if self.device is None else as_device(self.device)

    def _check_channels(self, scene: Scene, name: str) -> None:
        """Refuse an image with another number of channels than ``n_channels``."""
        found = as_image(scene.image, spatial_ndim=self.spatial_ndim, name=name).shape[-1]
        if found != self.n_channels:
            raise ValueError(
                f"{name} has {found} channels, but n_channels={self.n_channels}; convert the image "
                f"(a gray one with skimage.color.gray2rgb), or set n_channels, and spatial_ndim=3 "
                f"for volumes."
            )

    def _costs(self, scene: Scene) -> NDArray[np.float32]:
        network = OfClasses(in_evaluation(self.network), np.asarray(self.classes), self.classes_)
        image = torch.from_numpy(np.moveaxis(scene.filled_colors, -1, 0))
        inference = Inference.of(self)
        size = inference.seen_shape(scene, tuple(image.shape[1:]))
        return inference.costs(network, image, self.classes_, size=size)


class OfClasses(nn.Module):
    """A network with one output for each class: outputs are left out or added up by label value.

    It is in evaluation mode and does not change the mode of the network.

    Parameters
    ----------
    network : Module
        Its output is converted by :func:`hybridseg.networks.adapt`.
    values : ndarray of int, (n_outputs,)
        The label value of each output of the network.
    classes : ndarray of int, (L,)
        The label values to keep, sorted.
    """

    def __init__(
        self, network: nn.Module, values: NDArray[np.int64], classes: NDArray[np.int64]
    ) -> None:
        super().__init__()
        self.training = False
        self.network = network
        if not isinstance(network, AdaptedNetwork):
            self.network = adapt(network)
            self.network.training = False
        self.n_outputs = len(values)
        self.seen = False
        self.outputs = [np.flatnonzero(values == value).tolist() for value in classes]

    def forward(self, images: Tensor) -> Tensor:
        """The logits ``(B, L, *spatial)`` of images ``(B, C, *spatial)``, as float32."""
        logits = self.network(images).float()
        if not self.seen:
            self.seen = True
            warn_of_proba(logits)
        if (self.n_outputs, logits.shape[1]) == (2, 1):  # the logit of the second of two classes
            logits = logits_of_two(logits)
        if logits.shape[1] != self.n_outputs:
            raise ValueError(
                f"classes has {self.n_outputs} values, but the network has {logits.shape[1]} "
                f"outputs; expected one value for each: pass -1 for outputs to leave out."
            )
        return torch.stack([logits[:, places].logsumexp(1) for places in self.outputs], dim=1)
