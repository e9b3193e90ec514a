"""The features that the kernels of a dense CRF compare, as tensors that can be differentiated.

They equal those of `hybridseg.pairwise.dense` number by number, so that lattices are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybridseg.space import settled
from hybridseg.validation import as_numbers, check_option

#: The fraction of the range by which colors may exceed it, and the same for images that were
#: normalized, whose brightness an augmentation may have changed.
_TOLERANCE, _LOOSE_TOLERANCE = 0.01, 1.0

#: The largest feature. Lattice coordinates are rounded float64, exact only far below 2**53.
_MAX_FEATURE = 1e12


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on the one kind of device that lacks float64."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class ColorScale:
    """How the values of images become colors on the scale 0..255.

    Parameters
    ----------
    limits : "dtype" or (low, high)
        The values that become 0 and 255. "dtype": 0 and 255 for uint8, 0 and 1 for floats.
    mean, std : sequence of float or None
        If given, images were normalized: ``image * std + mean`` has values within the limits.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.
    """

    limits: str | tuple[float, float] = "dtype"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def of(cls, image_range: Any, mean: Any, std: Any) -> ColorScale:
        """Check the arguments ``image_range``, ``image_mean`` and ``image_std`` of a layer."""
        limits = image_range
        if isinstance(image_range, str):
            check_option(image_range, "image_range", ("dtype",))
        else:
            limits = _numbers(image_range, "image_range")
            if len(limits) != 2 or not limits[0] < limits[1]:
                raise ValueError(
                    f"image_range={image_range!r}; expected 'dtype' or (low, high), the values of "
                    f"black and white: pass (0, 255), for example."
                )
        if (mean is None) != (std is None):
            raise ValueError(
                f"image_mean={mean!r} and image_std={std!r}; expected both or neither: pass the "
                f"numbers with which the images were normalized."
            )
        if mean is None:
            return cls(limits)
        known = _numbers(mean, "image_mean"), _numbers(std, "image_std")
        if min(known[1]) <= 0 or len(known[0]) != len(known[1]):
            raise ValueError(
                f"image_mean={mean!r} and image_std={std!r}; expected a mean and a positive "
                f"standard deviation for each channel."
            )
        return cls(limits, *known)

    def colors(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Return colors on the scale 0..255 of images (B, C, *spatial).

        Raises
        ------
        TypeError
            The limits are "dtype", and images hold integers other than uint8.
        ValueError
            Values are outside the limits or not finite, or ``mean`` does not fit the channels.
        """
        low, high = self._limits(images)
        values = images.to(dtype)
        if self.mean is not None and self.std is not None:
            if len(self.mean) not in (1, images.shape[1]):
                raise ValueError(
                    f"images has {images.shape[1]} channels, but image_mean has "
                    f"{len(self.mean)} numbers; expected one for each channel."
                )
            shape = (-1,) + (1,) * (images.ndim - 2)
            mean, std = (values.new_tensor(each).view(shape) for each in (self.mean, self.std))
            values = values * std + mean
        self._check(values, low, high)
        if (low, high) == (0.0, 255.0):
            return values
        return (values - low) * (255.0 / (high - low))

    def _limits(self, images: Tensor) -> tuple[float, float]:
        if not isinstance(self.limits, str):
            return self.limits
        if images.dtype == torch.uint8:
            return 0.0, 255.0
        if not images.is_floating_point():
            raise TypeError(
                f"images has dtype {images.dtype}; expected floats or uint8: pass "
                f"image_range=(low, high) for other integers."
            )
        return 0.0, 1.0

    def _check(self, values: Tensor, low: float, high: float) -> None:
        """Refuse values outside the limits, which show that the images were normalized."""
        if not values.numel():
            return
        least, most = (float(value) for value in torch.aminmax(values.detach()))
        loose = _TOLERANCE if self.mean is None else _LOOSE_TOLERANCE
        slack = loose * (high - low)
        if low - slack <= least and most <= high + slack:
            return
        what = "images has" if self.mean is None else "images * image_std + image_mean has"
        raise ValueError(
            f"{what} values from {least:g} to {most:g}; expected {low:g} to {high:g}: pass "
            f"image_mean and image_std if the images were normalized, or the image_range of "
            f"their values, such as (0, 255)."
        )


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    """Check a number or a sequence of finite numbers."""
    array = as_numbers(values, name, expected="finite numbers").reshape(-1)
    found = tuple(float(value) for value in array)
    if not found or not all(abs(value) < float("inf") for value in found):
        raise ValueError(f"{name}={values!r}; expected finite numbers.")
    return found


def positions(
    shape: Sequence[int], spacing: Sequence[float], width: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return index x spacing / width of every pixel, (n, n_axes), the last image axis first."""
    axes = []
    for size, step in zip(shape, spacing, strict=True):
        rate = step / width
        known = float(rate.detach())
        rate = rate + (settled(known) - known)  # points that lie on one plane stay on it
        axes.append(torch.arange(size, device=width.device, dtype=width.dtype) * rate)
    grid = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([axis.reshape(-1) for axis in reversed(grid)], dim=1).to(dtype)


def joined(places: Tensor, values: Tensor) -> Tensor:
    """Join positions (n, n_axes) and values (B, F, *spatial) of pixels to rows (B, n, d)."""
    rows = values.flatten(2).transpose(1, 2)
    return torch.cat([places.expand(len(rows), -1, -1), rows], dim=2)


def check_extent(features: Tensor, name: str, hint: str) -> None:
    """Refuse features that are NaN, infinite or too large for a lattice."""
    if features.numel() and not bool((features.detach().abs() <= _MAX_FEATURE).all()):
        raise ValueError(
            f"{name} has features that are not finite or exceed {_MAX_FEATURE:g} standard "
            f"deviations: {hint}."
        )
