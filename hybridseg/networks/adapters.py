"""An adapter that lets any segmentation network return logits at the size of its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hybridseg.networks.blocks import pad_to_multiple, resize
from hybridseg.networks.encoders import ready_statistics
from hybridseg.networks.statistics import check_input_range, warn_of_scale
from hybridseg.scene.costs import ends_in
from hybridseg.validation import check_number, check_option, warn_caller

__all__ = ["AdaptedNetwork", "adapt"]


def adapt(
    network: nn.Module,
    *,
    multiple_of: int = 1,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    input_range: Sequence[float] | None = None,
    statistics: Any = None,
    reverse_channels: bool = False,
    output: Callable[[Any], Tensor] | str | None = None,
) -> AdaptedNetwork:
    """Wrap any segmentation network, so that it returns logits at the size of its input.

    It works with the models of torchvision, which return a dict with "out"; with those of
    segmentation_models_pytorch, with ``multiple_of=32``; and with those of transformers that return
    ``logits``, such as SegFormer, whose logits have a quarter of the size. Use ``multiple_of=32``
    with these too if images may be small.

    Parameters
    ----------
    network : nn.Module
        Takes images ``(B, C, H, W)`` and returns logits ``(B, L, h, w)``, or volumes
        ``(B, C, D, H, W)`` and ``(B, L, d, h, w)``. It may also return a dict with the logits under
        "out" or "logits", or a tuple or list that begins with them. Other tensors in it with as
        many classes are the logits of auxiliary heads: :class:`hybridseg.DeepSegmenter` trains
        them too.
    multiple_of : int, default=1
        The network takes images whose sides are multiples of this number. Images are padded at the
        end of each axis with their last values, and the logits are cropped to the size of the
        images.
    mean, std : float or sequence of float, optional
        If given, the network receives ``(image - mean) / std``, with one number for each channel in
        the order of the network. They belong to weights that were trained elsewhere and are on the
        scale of the incoming images: 0..255 from a :class:`hybridseg.PretrainedSegmenter`, or that
        of ``input_range``.
    input_range : (float, float), optional
        The values to which colors 0 and 255 are rescaled before they are standardized.
        torchvision's usual statistics are given as ``mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), input_range=(0, 1)``.
    statistics : str, weights, mapping or image processor, optional
        Replaces ``mean``, ``std`` and ``input_range``: any source that
        :func:`hybridseg.networks.input_statistics` takes, such as "imagenet", or the weights of the
        network: ``FCN_ResNet50_Weights.DEFAULT``.
    reverse_channels : bool, default=False
        Reorder red, green, blue to blue, green, red first, for weights that were trained with
        OpenCV. ``statistics`` of such weights do this too.
    output : callable, "proba", "sigmoid" or "binary", optional
        How the network's output becomes logits. A callable ``output(found)`` returns the logits;
        it must be importable if the module is pickled. "proba": the network ends in a softmax, and
        the logarithm is taken. "sigmoid": each channel ends in a sigmoid, which is inverted.
        "binary": the network has one channel, the logit of class 1 against class 0, which becomes
        two; a single channel with "sigmoid" becomes two as well.

    Returns
    -------
    AdaptedNetwork
        A module around ``network``, which is not copied: training one trains the other.

    Raises
    ------
    TypeError
        ``network`` is not an nn.Module, or ``statistics`` is of another type.
    ValueError
        Another argument is not as described.

    Warns
    -----
    UserWarning
        ``mean`` and ``std`` do not look like those of colors 0..255, but perhaps of 0..1.

    Examples
    --------
    >>> import torch
    >>> from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    >>> from hybridseg.networks import adapt
    >>> theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    >>> network = adapt(theirs).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """
    adapted = AdaptedNetwork(
        network,
        multiple_of=multiple_of,
        mean=mean,
        std=std,
        input_range=input_range,
        statistics=statistics,
        reverse_channels=reverse_channels,
        output=output,
    )
    if not (mean is None and std is None):
        center, width = _per_channel(mean, 0.0, "mean"), _per_channel(std, 1.0, "std")
        warn_of_scale(center, width, input_range=input_range or (0, 255))
    return adapted


class AdaptedNetwork(nn.Module):
    """The network that :func:`adapt` returns; its parameters are described there.

    Attributes
    ----------
    input_mean, input_std : tuple of float, or None
        (0,) and (1,) if the network standardizes colors itself, so that it expects them unchanged;
        else None. See :func:`hybridseg.networks.input_statistics`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        multiple_of: int = 1,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
        input_range: Sequence[float] | None = None,
        statistics: Any = None,
        reverse_channels: bool = False,
        output: Callable[[Any], Tensor] | str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"network is a {type(network).__name__}; expected a torch.nn.Module, such as "
                f"torchvision.models.segmentation.fcn_resnet50()."
            )
        check_number(multiple_of, "multiple_of", minimum=1, integer=True)
        if isinstance(output, str):
            check_option(output, "output", sorted(_OUTPUTS))
        if statistics is not None:
            if not (mean is None and std is None and input_range is None):
                raise ValueError(
                    f"statistics={statistics!r} is given with mean, std or input_range; expected "
                    f"one or the other: leave out mean, std and input_range."
                )
            mean, std, reversed_too = ready_statistics(statistics)
            reverse_channels = reverse_channels or reversed_too
        self.network = network
        self.multiple_of = multiple_of
        self.reverse_channels = reverse_channels
        self.output = output
        self.standardizes = not (mean is None and std is None and input_range is None)
        black, white = check_input_range((0, 255) if input_range is None else input_range)
        center, width = _per_channel(mean, 0.0, "mean"), _per_channel(std, 1.0, "std")
        unit = 255 / (white - black)
        self.register_buffer("mean", (center - black) * unit)
        self.register_buffer("std", width * unit)
        self.input_mean = (0.0,) if self.standardizes else None
        self.input_std = (1.0,) if self.standardizes else None

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, *spatial)`` of images ``(B, C, *spatial)``."""
        return self._at_size_of(images, _no_others)[0]

    def with_auxiliary(self, images: Tensor) -> list[Tensor]:
        """Return the logits and those of auxiliary heads, all ``(B, L, *spatial)``, for training.

        The auxiliary logits are the other tensors in the network's dict or sequence that have as
        many axes and classes. There are none if ``output`` is given.
        """
        return self._at_size_of(images, self._auxiliary)

    def _at_size_of(
        self, images: Tensor, others: Callable[[Any, Tensor], list[Tensor]]
    ) -> list[Tensor]:
        inside = tuple(slice(side) for side in images.shape[2:])
        if self.reverse_channels:
            images = images.flip(1)
        if self.standardizes:
            mean, std = (
                values.reshape(-1, *(1,) * len(inside)) for values in (self.mean, self.std)
            )
            images = (images.float() - mean.float()) / std.float()
        padded = pad_to_multiple(images, self.multiple_of, training=self.training)
        found = self.network(padded.to(_precision_of(self.network, padded)))
        logits = self._chosen(found)
        if logits.ndim != images.ndim:
            axes = "(B, L, H, W)" if len(inside) == 2 else "(B, L, D, H, W)"
            raise ValueError(
                f"{self._name()} returns a tensor of shape {tuple(logits.shape)}; expected logits "
                f"{axes} with one channel for each class."
            )
        return [
            resize(part, padded.shape[2:])[:, :, *inside]
            for part in (logits, *others(found, logits))
        ]

    def _auxiliary(self, found: Any, logits: Tensor) -> list[Tensor]:
        if self.output is not None or not isinstance(found, Mapping | tuple | list):
            return []
        parts = found.values() if isinstance(found, Mapping) else found
        return [
            part
            for part in parts
            if isinstance(part, Tensor)
            and part is not logits
            and part.ndim == logits.ndim
            and part.shape[:2] == logits.shape[:2]
        ]

    def _chosen(self, found: Any) -> Tensor:
        if callable(self.output):
            return self.output(found)
        if self.output is not None:
            return _OUTPUTS[self.output](self._first(found))
        return self._first(found)

    def _first(self, found: Any) -> Tensor:
        if isinstance(found, Tensor):
            return found
        if isinstance(found, Mapping):
            for key in ("out", "logits"):
                if key in found:
                    return found[key]
            what = f"a dict with {', '.join(map(repr, found))}"
        elif isinstance(found, tuple | list) and found and isinstance(found[0], Tensor):
            return found[0]
        else:
            what = f"a {type(found).__name__}"
        raise ValueError(
            f"{self._name()} returns {what}; expected a tensor, or a dict with 'out' or 'logits'. "
            f"Pass output=, a function from the network's output to logits (B, L, H, W)."
        )

    def _name(self) -> str:
        return type(self.network).__name__


def _per_channel(values: Sequence[float] | float | None, default: float, name: str) -> Tensor:
    given = default if values is None else values
    # On the CPU, because tensors on the device "meta" have no values to check.
    numbers = torch.as_tensor(given, dtype=torch.float32, device="cpu")
    if numbers.ndim > 1 or not bool(torch.isfinite(numbers).all()):
        raise ValueError(f"{name}={values!r}; expected a number, or one number for each channel.")
    if name == "std" and bool((numbers <= 0).any()):
        raise ValueError(f"std={values!r}; expected numbers > 0.")
    return numbers.reshape(-1, 1, 1).to(torch.get_default_device())


def _precision_of(network: nn.Module, images: Tensor) -> torch.dtype:
    """Return the dtype of a network's weights, or that of the images if it has no weights."""
    kinds = (p.dtype for p in network.parameters() if p.is_floating_point())
    return next(kinds, images.dtype)


def _logits_of_proba(proba: Tensor) -> Tensor:
    return proba.float().clamp(min=_MIN_PROBABILITY).log()


def _logits_of_sigmoid(proba: Tensor) -> Tensor:
    logits = proba.float().clamp(_MIN_PROBABILITY, 1 - torch.finfo(torch.float32).eps).logit()
    return logits if logits.shape[1] > 1 else logits_of_two(logits)


def _logits_of_binary(logits: Tensor) -> Tensor:
    if logits.shape[1] != 1:
        raise ValueError(
            f"output='binary', but the network has {logits.shape[1]} outputs; expected one: use "
            f"output=None for logits of several classes."
        )
    return logits_of_two(logits)


def logits_of_two(logits: Tensor) -> Tensor:
    """Return the logits of two classes from the logit of the second one, ``(B, 1, *spatial)``."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


#: Probabilities are raised to this value before the logarithm.
_MIN_PROBABILITY = 1e-12
#: Functions that turn the outputs of other last layers into logits.
_OUTPUTS = {
    "binary": _logits_of_binary,
    "proba": _logits_of_proba,
    "sigmoid": _logits_of_sigmoid,
}


def warn_of_proba(logits: Tensor) -> None:
    """Warn if a network's output ``(B, L, *spatial)`` seems to be probabilities, not logits."""
    step = max(1, int((logits[0, 0].numel() / 4096) ** (1 / (logits.ndim - 2))))
    seen = logits.detach()[:1][:, :, *(slice(None, None, step),) * (logits.ndim - 2)]
    kind = ends_in(seen.movedim(1, -1).float().cpu().numpy())
    if kind is not None:
        ends = {"proba": "a softmax", "sigmoid": "sigmoids"}[kind]
        warn_caller(
            f"the network apparently ends in {ends}: its outputs look like probabilities. A "
            f"softmax of probabilities flattens them. Wrap the network, "
            f"hybridseg.networks.adapt(network, output={kind!r}), or remove its last layer.",
        )


def _no_others(_found: Any, _logits: Tensor) -> list[Tensor]:
    return []
