"""A network that was trained elsewhere, as the first step of a pipeline: nothing is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

try:
    import torch
except ImportError as error:
    raise ImportError("PretrainedSegmenter needs PyTorch: pip install hybridseg[deep]") from error
from torch import Tensor, nn

from hybridseg.base import IGNORE_LABEL, INTENSITY_RANGE, Interval, Scene, Segmenter
from hybridseg.costs import costs_from_logits
from hybridseg.networks.adapters import AdaptedNetwork, adapt
from hybridseg.validation import IntensityRange, as_image

__all__ = ["PretrainedSegmenter"]


class PretrainedSegmenter(Segmenter):
    """Segment with a network that was trained elsewhere; its logits become the costs.

    It counts as fitted from the start, so that a pipeline of it and a refiner predicts at once.
    To train a network further, take :class:`hybridseg.DeepSegmenter`.

    Parameters
    ----------
    network : torch.nn.Module
        From images ``(1, C, H, W)``, with colours 0..255, to logits. Weights that expect other
        numbers are told which by :func:`hybridseg.networks.adapt`, which also wraps the networks
        of other libraries. It runs where its parameters are, in evaluation mode, which is set for
        the time of a prediction only.
    classes : sequence of int
        The label value of each of the network's outputs, such as ``range(21)``. Outputs with a
        negative one, such as a class "void", are left out; the probabilities of outputs with the
        same one are summed.
    n_channels : int
        Channels of the images.
    intensity_range : {"dtype", "image"} or (low, high)
        How values become colours; see :class:`PixelClassifier`.
    ignore_label : int, optional
        A label value, beside the negative ones, that means "ignore" to ``score``, such as 255.

    Attributes
    ----------
    classes_ : ndarray of int, (L,)
        The values in ``classes`` that are not negative, sorted.

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
        "intensity_range": INTENSITY_RANGE,
        "ignore_label": IGNORE_LABEL,
    }

    spatial_ndim_ = 2

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[int],
        *,
        n_channels: int = 3,
        intensity_range: IntensityRange = "dtype",
        ignore_label: int | None = None,
    ) -> None:
        self.network = network
        self.classes = classes
        self.n_channels = n_channels
        self.intensity_range = intensity_range
        self.ignore_label = ignore_label

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Check the parameters; nothing is learned."""
        self._validate_params()
        if len(self.classes_) < 2:
            raise ValueError(f"classes={self.classes!r}; expected at least two that are >= 0.")
        return self

    def transform(self, X: Any) -> Any:
        """Turn images into Scenes whose costs are computed when they are read.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of Scene
            Input for a refiner such as :class:`hybridseg.DenseCRF`.
        """
        return super(PretrainedSegmenter, self.fit()).transform(X)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def classes_(self) -> NDArray[np.int64]:  # type: ignore[override]
        values = np.asarray(self.classes)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise ValueError(
                f"classes={self.classes!r}; expected one integer for each output of the network."
            )
        return np.unique(values[values >= 0]).astype(np.int64)

    @property
    def n_channels_in_(self) -> int:  # type: ignore[override]
        return self.n_channels

    def _check_channels(self, scene: Scene, name: str) -> None:
        found = as_image(scene.image, spatial_ndim=2, name=name).shape[-1]
        if found != self.n_channels:
            raise ValueError(
                f"{name} has {found} channels, but n_channels={self.n_channels}; convert the image "
                f"(grey ones with skimage.color.gray2rgb), or set n_channels."
            )

    def _costs(self, scene: Scene) -> NDArray[np.float32]:
        network = self.network
        if not isinstance(network, AdaptedNetwork):
            network = adapt(network)
        place = next((p.device for p in network.parameters()), torch.device("cpu"))
        image = torch.from_numpy(scene.colors).permute(2, 0, 1)[None].to(place)
        with evaluating(network), torch.inference_mode():
            logits = network(image)[0].cpu().float()
        return costs_from_logits(self._by_class(logits).permute(1, 2, 0).numpy())

    def _by_class(self, logits: Tensor) -> Tensor:
        """Logits of the classes from those ``(outputs, H, W)`` of the network."""
        values = np.asarray(self.classes)
        if len(logits) != len(values):
            raise ValueError(
                f"classes has {len(values)} values, but the network gives {len(logits)} outputs; "
                f"expected one value for each, negative for those to leave out."
            )
        return torch.stack([logits[values == value].logsumexp(0) for value in self.classes_])


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Set evaluation mode for a while; each module comes back in the mode that it had."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
