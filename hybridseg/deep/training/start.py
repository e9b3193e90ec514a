"""The initial network of a training: a new one, a copy, or a trained one with a new head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.deep.prediction.inputs import Moments
from hybridseg.deep.training.image_dataset import DatasetStatistics
from hybridseg.networks import NETWORKS, input_statistics
from hybridseg.validation import check_option

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, eq=False)
class Trained:
    """A network from an earlier training.

    Attributes
    ----------
    module : Module
    classes : ndarray of int, (L,)
        The label value of each output, sorted.
    mean, std : ndarray of float32, (C,)
        The mean and standard deviation with which its inputs are standardized.
    """

    module: nn.Module
    classes: NDArray[Any]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def make_module(
    network: Any, options: Mapping[str, Any] | None, n_channels: int, n_classes: int
) -> nn.Module:
    """Make a network with weights in float32: from a name or a factory, or as a copy of a module.

    Raises
    ------
    ValueError
        The name is unknown, or there are options for a module that exists already.
    TypeError
        The factory does not return a module.
    """
    if isinstance(network, nn.Module):
        if options:
            raise ValueError(
                f"network_options={options!r}, but network is a module that exists already; "
                f"expected network_options=None: pass the class of the network to use options."
            )
        return _in_float32(copy.deepcopy(network))
    factory = network
    if isinstance(network, str):
        factory = NETWORKS[check_option(network, "network", sorted(NETWORKS))]
    module = factory(in_channels=n_channels, n_classes=n_classes, **(options or {}))
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"network={network!r} made a {type(module).__name__}; expected a torch.nn.Module: pass "
            f"a class or a function that returns one."
        )
    return _in_float32(module)


def _in_float32(module: nn.Module) -> nn.Module:
    """Convert the weights of a module to float32 if some have another precision."""
    kinds = {value.dtype for value in module.state_dict().values() if isinstance(value, Tensor)}
    return module.float() if kinds & {torch.float16, torch.bfloat16, torch.float64} else module


def moments_of(
    module: nn.Module, statistics: DatasetStatistics, trained: Trained | None
) -> Moments:
    """The mean and standard deviation ``(C,)`` with which a network's inputs are standardized.

    A trained network keeps those of its training, and pretrained weights come with their own. For
    other networks they are computed from the training images.

    Raises
    ------
    ValueError
        The pretrained weights are for another number of channels than the images have.
    """
    if trained is not None:
        return trained.mean, trained.std
    expected = input_statistics(without_crf(module))
    if expected is None:
        return statistics.mean, statistics.std
    n_channels = len(statistics.mean)
    if any(len(values) not in (1, n_channels) for values in expected):
        raise ValueError(
            f"network expects the mean and standard deviation of {len(expected[0])} channels, but "
            f"the images have {n_channels}; convert the images, or pass other statistics to adapt."
        )
    mean, std = (np.full(n_channels, values, np.float32) for values in expected)
    return mean, std


def without_crf(module: nn.Module) -> nn.Module:
    """Return the network that a CRF refines, or the network itself if there is no CRF."""
    found: nn.Module = getattr(module, "unrefined", module)
    return found


def without_weights(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options without pretrained weights, so that no file is read or downloaded."""
    kept = dict(options or {})
    for name in ("weights", "encoder_weights"):
        if kept.get(name) is not None:
            kept[name] = None
    return kept


def convolution_ranks(module: nn.Module) -> set[int]:
    """The numbers of spatial axes of a network's convolutions: a subset of {2, 3}."""
    return {part.weight.ndim - 2 for part in module.modules() if isinstance(part, _CONVOLUTIONS)}


def check_rank(module: nn.Module, spatial_ndim: int) -> None:
    """Refuse volumes for a network with 2-D convolutions, and images for one with 3-D ones.

    Raises
    ------
    ValueError
        No convolution of the network has ``spatial_ndim`` axes.
    """
    kinds = convolution_ranks(module)
    if not kinds or spatial_ndim in kinds:
        return
    name = type(module).__name__
    if spatial_ndim == 3:
        raise ValueError(
            f"y[0] is a volume (D, H, W), but {name} segments 2-D images; use 'unet3d' or "
            f"'vnet', or pass the planes as images: X = [plane for volume in X for plane in "
            f"volume], and y in the same way."
        )
    raise ValueError(
        f"y[0] is a label map (H, W), but {name} segments volumes (D, H, W); use a 2-D network, "
        f"such as 'unet'."
    )


def continued_module(
    network: Any,
    options: Mapping[str, Any] | None,
    n_channels: int,
    classes: NDArray[Any],
    trained: Trained,
) -> nn.Module:
    """A copy of a trained network without its CRF, with a new head if the classes have changed.

    The new head keeps the weights of the classes that remain. Those of new classes are random.

    Raises
    ------
    ValueError
        The classes have changed, and ``network`` is a module, whose head cannot be replaced.
    """
    before = without_crf(trained.module)
    if np.array_equal(trained.classes, classes):
        return copy.deepcopy(before)
    if isinstance(network, nn.Module):
        raise ValueError(
            f"the classes are {classes.tolist()}, but the network was trained for "
            f"{trained.classes.tolist()}, and network is a module with a fixed number of outputs; "
            f"expected a class or a factory: pass it with network_options instead."
        )
    options = without_weights(options)
    module = make_module(network, options, n_channels, len(classes))
    with torch.random.fork_rng(devices=[]):  # only the shapes of its weights are used
        wider = make_module(network, options, n_channels, len(classes) + 1)
    state = module.state_dict()
    shapes = {name: value.shape for name, value in wider.state_dict().items()}
    _, old, new = np.intersect1d(trained.classes, classes, return_indices=True)
    for name, value in before.state_dict().items():
        axes = [i for i, n in enumerate(shapes[name]) if n != state[name].shape[i]]
        state[name] = _carried(value.cpu(), state[name], axes, old, new)
    module.load_state_dict(state)
    return module


def _carried(
    before: Tensor, fresh: Tensor, axes: list[int], old: NDArray[np.intp], new: NDArray[np.intp]
) -> Tensor:
    """Copy old weights to new ones; along an axis of classes, only those of the kept classes."""
    if not axes:
        return before
    n_before = {before.shape[axis] for axis in axes}
    n_after = {fresh.shape[axis] for axis in axes}
    if len(axes) > 1 or max(old, default=0) >= min(n_before) or max(new, default=0) >= min(n_after):
        return fresh  # grouped or pairwise classes cannot be matched, so they are learned again
    axis = axes[0]
    out = fresh.clone().movedim(axis, 0)
    out[torch.from_numpy(new)] = before.movedim(axis, 0)[torch.from_numpy(old)]
    return out.movedim(0, axis)
