"""Test-time augmentation: predictions are averaged over scaled and mirrored views of an image."""

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
    """Test-time augmentation: predictions are averaged over several views of an image.

    There is a view for each scale and each combination of mirrored axes. The time of a prediction
    grows with their number.

    Parameters
    ----------
    scales : sequence of float
        The factors by which the image is resized, such as ``(0.75, 1.0, 1.25)``.
    mirror : sequence of int
        Axes along which the image is mirrored in all combinations, counted from the last (-1 is
        left to right). ``(-2, -1)`` gives four views of each scale, ``()`` gives one.
    average : {"proba", "log_proba"}
        "proba" is the arithmetic mean of the views' probabilities. "log_proba" is their geometric
        mean, which gives a low probability to a class that one view excludes.
    mirrored : sequence of int
        For each class index 0..L-1, the index of the class that it becomes in a mirror image (a
        view with an odd number of mirrored axes). Empty: each class stays the same. A segmenter
        sets it from its ``mirror_pairs``.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

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
            raise ValueError(
                "scales is empty; expected at least one factor: pass (1.0,) for the original size."
            )
        for axis in self.mirror:
            check_number(axis, "an axis of mirror", integer=True)
        if len(set(self.mirror)) < len(self.mirror) or not set(self.mirror) <= {-3, -2, -1}:
            raise ValueError(
                f"mirror={self.mirror!r}; expected different axes counted from the last: pass some "
                f"of -1 and -2, and -3 for volumes."
            )
        check_option(self.average, "average", ("proba", "log_proba"))

    def __len__(self) -> int:
        return len(self.scales) * 2 ** len(self.mirror)

    def scores(self, score: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Average the predictions of all views.

        Parameters
        ----------
        score : callable
            Computes the logits ``(L, *spatial)`` of a view ``(C, *spatial)``.
        image : Tensor, (C, *spatial)

        Returns
        -------
        Tensor, (L, *spatial)
            Log-probabilities, not normalized for ``average="log_proba"``.
        """
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
    """For each class index, the index of the class that it becomes in a mirror image.

    Parameters
    ----------
    mirror_pairs : sequence of (int, int)
        Pairs of label values.
    classes : ndarray of int, (L,)
        All label values, sorted.

    Returns
    -------
    tuple of int
        One index for each class; empty without pairs.

    Raises
    ------
    ValueError
        ``mirror_pairs`` does not hold pairs of integers, has a value twice, or has a value that is
        not in ``classes``.
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
            f"mirror_pairs={mirror_pairs!r}; expected different label values, each in one pair: "
            f"pass values of the classes {np.asarray(classes).tolist()}."
        )
    places = np.searchsorted(classes, values)
    mirrored = np.arange(len(classes))
    mirrored[places[:, 0]], mirrored[places[:, 1]] = places[:, 1], places[:, 0]
    return tuple(mirrored.tolist())


def _subsets(axes: list[int]) -> Iterator[tuple[int, ...]]:
    """All combinations of axes, from none to all of them."""
    return itertools.chain.from_iterable(
        itertools.combinations(axes, k) for k in range(len(axes) + 1)
    )
