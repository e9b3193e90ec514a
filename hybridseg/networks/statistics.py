"""Means and standard deviations by which colors were standardized when weights were trained."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridseg.validation import warn_caller

__all__ = ["Statistics"]

#: Every estimator passes colors on the scale from 0 to this value.
_WHITE = 255.0


class Statistics(NamedTuple):
    """Color statistics: weights expect ``(color - mean) / std`` of colors 0..255.

    Attributes
    ----------
    mean, std : tuple of float
        One number for each channel, in the order of the network's channels.
    reverse_channels : bool
        Whether this order is blue, green, red.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse_channels: bool = False


#: Statistics by name: torchvision's, which are the most common, and those of Caffe.
READY = {
    "imagenet": Statistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "caffe": Statistics((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), reverse_channels=True),
}


def of_weights(weights: Any) -> Statistics | None:
    """Return the statistics of weights, or of an object that prepares images; None for others.

    Parameters
    ----------
    weights : weights of torchvision, mapping or image processor
        See :func:`hybridseg.networks.input_statistics`.

    Raises
    ------
    ValueError
        They have no mean and standard deviation.
    """
    if isinstance(weights, enum.Enum) and callable(getattr(weights.value, "transforms", None)):
        return _of_unit(weights.value.transforms(), "mean", "std", str(weights))
    if isinstance(weights, Mapping):
        return _of_mapping(weights)
    if hasattr(weights, "image_mean") and hasattr(weights, "image_std"):
        return _of_unit(weights, "image_mean", "image_std", type(weights).__name__)
    return None


def _of_unit(holder: Any, mean: str, std: str, name: str) -> Statistics:
    """Read statistics on the scale [0, 1] from two attributes."""
    means, stds = (getattr(holder, which, None) for which in (mean, std))
    if not (isinstance(means, Iterable) and isinstance(stds, Iterable)):
        raise ValueError(
            f"statistics={name} has no mean and standard deviation; expected weights of a "
            f"network that segments or classifies: pass mean= and std= instead."
        )
    return Statistics(
        tuple(_WHITE * float(value) for value in means),
        tuple(_WHITE * float(value) for value in stds),
    )


def _of_mapping(given: Mapping[str, Any]) -> Statistics:
    if not {"mean", "std"} <= set(given):
        raise ValueError(
            f"statistics={given!r}; expected a mapping with 'mean' and 'std', such as the result "
            f"of segmentation_models_pytorch's get_preprocessing_params or timm's "
            f"resolve_data_config."
        )
    mean, std = (tuple(float(value) for value in given[name]) for name in ("mean", "std"))
    span = given.get("input_range")
    white = max(span) if span else (1.0 if max(*mean, *std) <= 1 else _WHITE)
    factor = _WHITE / float(white)
    mean, std = (tuple(factor * value for value in values) for values in (mean, std))
    return Statistics(mean, std, str(given.get("input_space", "RGB")).upper() == "BGR")


def warn_of_scale(
    mean: Any,
    std: Any,
    *,
    input_range: Sequence[float] = (0.0, _WHITE),
) -> None:
    """Warn if statistics do not look like those of colors in ``input_range``."""
    low, high = input_range
    means, stds = (np.atleast_1d(np.asarray(values, float)).ravel() for values in (mean, std))
    reach = np.maximum(np.abs(low - means), np.abs(high - means)) / stds
    if high - low > 2 and _looks_unit(means, stds):
        cure = (
            f"they look like statistics of colors 0..1. Pass input_range=(0, 1) with them, or "
            f"mean={_shown(_WHITE * means)}, std={_shown(_WHITE * stds)}, or "
            f"statistics='imagenet' if these are ImageNet's."
        )
    elif (means < low).any() or (means > high).any():
        cure = "a mean lies outside of it. Convert both to this scale, or pass another input_range."
    elif reach.max() > max(_WHITE, high - low) + 1:
        cure = (
            f"the standardized colors would reach {reach.max():.3g}. Convert both to this scale, "
            f"or pass another input_range."
        )
    else:
        return
    warn_caller(
        f"mean={_shown(means)} and std={_shown(stds)} are applied to colors "
        f"{low:g}..{high:g}, but {cure}",
    )


def _looks_unit(means: Any, stds: Any) -> bool:
    """Return whether the statistics look like those of colors in [0, 1].

    Mean 0 and standard deviation 1 change nothing and do not count.
    """
    inside = np.abs(means).max() <= 1 and stds.max() <= 1
    return bool(inside and ((stds < 1).any() or (means % 1 != 0).any()))


def _shown(values: Any) -> str:
    numbers = [f"{round(float(value), 3):g}" if value else "0" for value in values]
    if len(set(numbers)) == 1:
        return numbers[0]
    return f"({', '.join(numbers)})"


def check_input_range(input_range: Any) -> tuple[float, float]:
    """Return the values of black and white before they are standardized.

    Raises
    ------
    ValueError
        ``input_range`` is not two numbers in increasing order.
    """
    try:
        low, high = (float(value) for value in input_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ValueError(
            f"input_range={input_range!r}; expected the two numbers (black, white) to which colors "
            f"0 and 255 are rescaled, such as (0, 1)."
        )
    return low, high
