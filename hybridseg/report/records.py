"""Records of an experiment: rows of scores and times, images, settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Row:
    """Scores and times of one method, on one image or over several.

    Parameters
    ----------
    unary : str
        The name of the segmenter, such as "Pixel forest".
    refiner : str
        The name of the refiner, such as "DenseCRF"; empty without a refiner.
    mean_iou, boundary_iou : float
        In [0, 1], higher is better; NaN if no class could be scored.
    fit_seconds : float
        The time to train the segmenter; the same for each of its refiners.
    costs_seconds : float
        The time to compute the costs of all pixels.
    refine_seconds : float
        The time to refine them; 0 without a refiner.
    """

    unary: str
    refiner: str
    mean_iou: float
    boundary_iou: float
    fit_seconds: float
    costs_seconds: float
    refine_seconds: float

    @property
    def name(self) -> str:
        """The name of the method, such as "Pixel forest" or "Pixel forest + DenseCRF"."""
        return f"{self.unary} + {self.refiner}" if self.refiner else self.unary

    @property
    def seconds(self) -> float:
        """The total time from training to segmentation."""
        return self.fit_seconds + self.costs_seconds + self.refine_seconds


def baseline_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """The row of the same unary without a refiner; None if ``row`` itself has no refiner."""
    if not row.refiner:
        return None
    return next((other for other in rows if other.unary == row.unary and not other.refiner), None)


def average_rows(tables: Sequence[Sequence[Row]]) -> tuple[Row, ...]:
    """Average the rows of several images for each method; all images have the same weight.

    Parameters
    ----------
    tables : sequence of sequences of Row
        One table for each image, with the same methods in the same order.

    Returns
    -------
    tuple of Row
        NaN scores are left out of the means.
    """
    return tuple(_average(same) for same in zip(*tables, strict=True))


def _average(rows: Sequence[Row]) -> Row:
    numbers = {
        name: _mean_of_defined([getattr(row, name) for row in rows])
        for name in Row.__dataclass_fields__
        if name not in ("unary", "refiner")
    }
    return Row(rows[0].unary, rows[0].refiner, **numbers)


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image with its truth and the predictions of all methods.

    Parameters
    ----------
    name : str
    image : ndarray, (H, W[, C])
        The original image.
    truth : ndarray of int, (H, W)
        Label values; negative where void.
    class_names : mapping from int to str
        The name of each label value.
    rows : tuple of Row
        One row for each method.
    predictions : tuple of ndarray of int, (H, W)
        The prediction of each row's method, in the order of ``rows``.
    scribbles : ndarray of int, (H, W), optional
        The training labels, if they were drawn on this image; negative elsewhere.
    remark : str
        A remark for the reader, such as the size to which the image was scaled.
    """

    name: str
    image: NDArray[Any]
    truth: NDArray[Any]
    class_names: Mapping[int, str]
    rows: tuple[Row, ...]
    predictions: tuple[NDArray[Any], ...]
    scribbles: NDArray[Any] | None = None
    remark: str = ""


#: The former name of :class:`ImageResult`.
Picture = ImageResult


@dataclass(frozen=True, eq=False)
class Experiment:
    """The record of an experiment, with everything that the report shows.

    Parameters
    ----------
    title : str
        One line.
    protocol : tuple of str
        The training data and the scores, described in paragraphs.
    rows : tuple of Row
        Scores and times over all images, one row for each method.
    averaging : str
        How ``rows`` were averaged, such as "mean over 8 photographs".
    images : tuple of ImageResult
        The images that the report shows.
    rows_per_image : bool
        Whether each image had its own training. The report then lists the images on which a
        hybrid gains nothing.
    remarks : tuple of str
        Remarks about missing or unusual results.
    first_call_seconds : mapping from str to float
        The additional time of the first call of each part, by name.
    settings, environment : mapping from str to str
        The parameters of the methods; the versions of packages and the machine.
    wall_seconds : float
        The time of the whole experiment.
    """

    title: str
    protocol: tuple[str, ...]
    rows: tuple[Row, ...]
    averaging: str
    images: tuple[ImageResult, ...]
    rows_per_image: bool = True
    remarks: tuple[str, ...] = ()
    first_call_seconds: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    wall_seconds: float = 0.0
