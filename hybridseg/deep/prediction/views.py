"""Test-time augmentation: the views in which an image is scored."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridseg.deep.prediction.inputs import resized
from hybridseg.validation import check_number, check_option


@dataclass(frozen=True)
class Views:
    """Test-time augmentation: an image is scored in several views, and the results are averaged.

    Parameters
    ----------
    scales : sequence of float
        The image is resized by each of these factors, such as ``(0.75, 1.0, 1.25)``.
    mirror : sequence of int
        Axes, counted from the last (-1: left to right), along which the image is mirrored, in all
        combinations: ``(-2, -1)`` makes four views, ``()`` one.
    average : {"proba", "log_proba"}
        "proba": the mean of the views' probabilities. "log_proba": the mean of their logarithms,
        scaled to sum to one: a class that one view rules out is ruled out.
    mirrored : sequence of int
        The class index that each of 0..L-1 becomes in a mirror image, which an odd number of
        mirrorings makes. Empty: all stay. A segmenter fills it in from its ``mirror_pairs``.

    Examples
    --------
    >>> from hybridseg.unary import Views
    >>> len(Views(scales=(0.75, 1.0), mirror=(-2, -1)))
    8
    """

    scales: tuple[float, ...] = (1.0,)
    mirror: tuple[int, ...] = (-1,)
    average: str = "proba"
    mirrored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("scales", "mirror"):
            given = getattr(self, name)
            if not isinstance(given, tuple | list):
                raise TypeError(f"{name} is a {type(given).__name__}; expected a tuple of numbers.")
        for scale in self.scales:
            check_number(scale, "a scale of scales", minimum=0, strict=True)
        if not len(self.scales):
            raise ValueError("scales is empty; expected at least one factor, such as (1.0,).")
        for axis in self.mirror:
            check_number(axis, "an axis of mirror", integer=True)
        if len(set(self.mirror)) < len(self.mirror) or not set(self.mirror) <= {-3, -2, -1}:
            raise ValueError(
                f"mirror={self.mirror!r}; expected different axes counted from the last: -1, -2, "
                f"and -3 for volumes."
            )
        check_option(self.average, "average", ("proba", "log_proba"))

    def __len__(self) -> int:
        return len(self.scales) * 2 ** len(self.mirror)

    def scores(self, score: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Log-probabilities ``(L, *spatial)`` of an image ``(C, *spatial)``, over all views."""
        axes = [axis for axis in self.mirror if -axis < image.ndim]
        total = torch.zeros(())
        for scale in self.scales:
            size = tuple(max(1, round(extent * scale)) for extent in image.shape[1:])
            scaled = resized(image, size)
            for flipped in _subsets(axes):
                found = score(scaled.flip(flipped)).flip(flipped)
                if len(flipped) % 2 and len(self.mirrored):
                    found = found[list(self.mirrored)]
                log_proba = torch.log_softmax(resized(found, tuple(image.shape[1:])), dim=0)
                total = total + (log_proba if self.average == "log_proba" else log_proba.exp())
        mean = total / (len(self.scales) * 2 ** len(axes))
        return mean if self.average == "log_proba" else mean.clamp(min=1e-12).log()


def mirrored_classes(
    mirror_pairs: Sequence[Sequence[int]], classes: NDArray[Any]
) -> tuple[int, ...]:
    """The index of the class that each class becomes in a mirror image; empty without pairs.

    Parameters
    ----------
    mirror_pairs : sequence of (int, int)
        Label values.
    classes : ndarray of int, (L,)
        All label values, sorted.

    Raises
    ------
    ValueError
        No pairs of different label values, each once, all of them among ``classes``.
    """
    if not len(mirror_pairs):
        return ()
    pairs = np.asarray(mirror_pairs, dtype=object)
    plain = pairs.ndim == 2 and pairs.shape[1] == 2
    if not plain or any(not isinstance(value, Integral) for value in pairs.flat):
        raise ValueError(
            f"mirror_pairs={mirror_pairs!r}; expected pairs of label values, such as ((1, 2),)."
        )
    values = pairs.astype(np.int64)
    if len(np.unique(values)) < values.size or not np.isin(values, classes).all():
        raise ValueError(
            f"mirror_pairs={mirror_pairs!r}; expected different label values, each in one pair, "
            f"of the classes {np.asarray(classes).tolist()}."
        )
    places = np.searchsorted(classes, values)
    mirrored = np.arange(len(classes))
    mirrored[places[:, 0]], mirrored[places[:, 1]] = places[:, 1], places[:, 0]
    return tuple(mirrored.tolist())


def _subsets(axes: list[int]) -> Iterator[tuple[int, ...]]:
    return itertools.chain.from_iterable(
        itertools.combinations(axes, k) for k in range(len(axes) + 1)
    )
