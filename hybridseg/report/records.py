"""What an experiment leaves behind: rows of figures, pictures, and how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Row:
    """The figures of one method, on one picture or over several.

    Parameters
    ----------
    unary : str
        What made the costs, such as "Pixel forest".
    refiner : str
        What refined them, such as "DenseCRF"; empty where nothing did.
    mean_iou, boundary_iou : float
        In [0, 1], higher is better; NaN where nothing could be scored.
    fit_seconds : float
        Training what makes the costs; the same for each refiner of one unary.
    costs_seconds : float
        Computing the costs of every pixel with it.
    refine_seconds : float
        Refining them to labels; 0 without a refiner.
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
        """Such as "Pixel forest" or "Pixel forest + DenseCRF"."""
        return f"{self.unary} + {self.refiner}" if self.refiner else self.unary

    @property
    def seconds(self) -> float:
        """From the training labels to a segmentation, all parts together."""
        return self.fit_seconds + self.costs_seconds + self.refine_seconds


def baseline_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """Find the row of the same unary without a refiner; None for such a row itself."""
    if not row.refiner:
        return None
    return next((other for other in rows if other.unary == row.unary and not other.refiner), None)


def average_rows(tables: Sequence[Sequence[Row]]) -> tuple[Row, ...]:
    """Average several pictures' rows, method by method; every picture counts the same.

    Parameters
    ----------
    tables : sequence of sequences of Row
        One table a picture, each with the same methods in the same order.

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
class Picture:
    """One picture with its truth and what each method made of it.

    Parameters
    ----------
    name : str
    image : ndarray, (H, W[, C])
        As it came.
    truth : ndarray of int, (H, W)
        Label values; negative where void.
    class_names : mapping from int to str
        The name of each label value.
    rows : tuple of Row
        One a method.
    predictions : tuple of ndarray of int, (H, W)
        What each row's method predicted, in the order of ``rows``.
    scribbles : ndarray of int, (H, W), optional
        The training labels, where they were drawn on this picture; negative elsewhere.
    remark : str
        Anything that a reader must know about this picture, such as its working size.
    """

    name: str
    image: NDArray[Any]
    truth: NDArray[Any]
    class_names: Mapping[int, str]
    rows: tuple[Row, ...]
    predictions: tuple[NDArray[Any], ...]
    scribbles: NDArray[Any] | None = None
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Experiment:
    """The record of a whole experiment: everything that the report shows.

    Parameters
    ----------
    title : str
        One line.
    protocol : tuple of str
        What was learned from what, and how it was scored; one paragraph an entry.
    rows : tuple of Row
        The figures over all pictures, one row a method.
    averaging : str
        How ``rows`` came about, such as "mean over 8 photographs".
    pictures : tuple of Picture
        Those to be shown.
    rows_per_picture : bool
        Whether ``picture.rows`` are figures of separate experiments (one training each), of which
        the report lists those that gain nothing.
    remarks : tuple of str
        What is missing or out of the ordinary.
    first_call_seconds : mapping from str to float
        What the first call of each part cost more than later ones, by name.
    settings, environment : mapping from str to str
        The methods' parameters; versions and the machine.
    wall_seconds : float
        The whole run.
    """

    title: str
    protocol: tuple[str, ...]
    rows: tuple[Row, ...]
    averaging: str
    pictures: tuple[Picture, ...]
    rows_per_picture: bool = True
    remarks: tuple[str, ...] = ()
    first_call_seconds: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    wall_seconds: float = 0.0
