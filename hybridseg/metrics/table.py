"""The confusion table: counts of pixels by true and predicted class, for all scores of overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import LARGEST, as_label_map, as_numbers, check_number, check_option

ABSENT = ("exclude", "zero", "one")

#: Maps with labels below this are counted without renumbering, in a table of at most 2 MB.
_MAX_DENSE_LABELS = 512


@dataclass(frozen=True, eq=False)
class ConfusionTable:
    """Counts of pixels by true and predicted class; the tables of two data sets can be added.

    Attributes
    ----------
    counts : ndarray, (L, L + 1)
        ``counts[i, j]``: number of pixels of true class ``labels[i]`` that were predicted as
        ``labels[j]``. The last column counts pixels whose prediction is not in ``labels`` (a
        negative value, the ignored label, or a label that is not listed). int64, or float64 if
        images have weights. Pixels of void truth are not counted.
    labels : ndarray of int64, (L,)
        The class of each row.

    Notes
    -----
    The scores of a class that is in neither truth nor prediction are NaN, and means leave it out
    unless ``absent`` says otherwise. A class that is predicted but never true scores 0 and counts.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import confusion_table
    >>> first = confusion_table(np.array([[0, 0], [1, -1]]), np.array([[0, 1], [1, 1]]))
    >>> second = confusion_table(np.array([[2, 2]]), np.array([[2, 0]]))
    >>> both = first + second
    >>> both.labels.tolist(), both.counts.tolist()
    ([0, 1, 2], [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0]])
    >>> both.pixel_accuracy
    0.6
    """

    counts: NDArray[Any]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        size = len(as_numbers(self.labels, "labels", expected="a list of classes").ravel())
        counts = as_numbers(self.counts, "counts")
        if np.shape(self.labels) != (size,) or counts.shape != (size, size + 1):
            raise ValueError(
                f"counts has shape {counts.shape} and labels {np.shape(self.labels)}; expected "
                f"(L, L + 1) and (L,)."
            )

    @property
    def n_pixels(self) -> float:
        """Number of pixels of known truth (the sum of their weights)."""
        return float(self.counts.sum())

    @property
    def n_defined(self) -> int:
        """Number of classes in truth or prediction, over which means are taken."""
        return int(np.count_nonzero(self._truth + self._predicted))

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of pixels with the correct label; NaN if there are no pixels."""
        return float(_ratio(self._hits.sum(), self.counts.sum()))

    @property
    def iou(self) -> NDArray[np.float64]:
        """TP / (TP + FP + FN) of each class, (L,); NaN if a class is absent."""
        return _ratio(self._hits, self._truth + self._predicted - self._hits)

    @property
    def dice(self) -> NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN) of each class, (L,); NaN if a class is absent."""
        return _ratio(2 * self._hits, self._truth + self._predicted)

    def mean_iou(self, absent: str = "exclude") -> float:
        """Mean of :attr:`iou`; an absent class is left out, or counts as 0 or 1."""
        return class_mean(self.iou, absent)

    def mean_dice(self, absent: str = "exclude") -> float:
        """Mean of :attr:`dice`; an absent class is left out, or counts as 0 or 1."""
        return class_mean(self.dice, absent)

    def __add__(self, other: ConfusionTable) -> ConfusionTable:
        if not isinstance(other, ConfusionTable):
            return NotImplemented
        if np.array_equal(self.labels, other.labels):
            return ConfusionTable(self.counts + other.counts, self.labels)
        labels = np.union1d(self.labels, other.labels)
        return ConfusionTable(self.over(labels).counts + other.over(labels).counts, labels)

    def __radd__(self, other: int) -> ConfusionTable:
        return self if other == 0 else NotImplemented  # sum() starts from 0

    def __mul__(self, weight: float) -> ConfusionTable:
        check_number(weight, "weight", minimum=0)
        return ConfusionTable(self.counts * float(weight), self.labels)

    def over(self, labels: ArrayLike) -> ConfusionTable:
        """Return the table of the classes ``labels``; predictions of other classes become void.

        Raises
        ------
        TypeError, ValueError
            ``labels`` is not a list of integers.
        """
        kept_labels = as_listed(labels)
        size = len(kept_labels)
        places = {int(label): place for place, label in enumerate(kept_labels)}
        columns = np.array([places.get(int(label), size) for label in self.labels] + [size])
        rows, kept = columns[:-1], columns[:-1] < size
        counts = np.zeros((size, size + 1), self.counts.dtype)
        np.add.at(counts, (rows[kept, np.newaxis], columns[np.newaxis]), self.counts[kept])
        return ConfusionTable(counts, kept_labels)

    @property
    def _hits(self) -> NDArray[Any]:
        hits: NDArray[Any] = np.diagonal(self.counts)
        return hits

    @property
    def _truth(self) -> NDArray[Any]:
        totals: NDArray[Any] = self.counts.sum(axis=1)
        return totals

    @property
    def _predicted(self) -> NDArray[Any]:
        totals: NDArray[Any] = self.counts[:, :-1].sum(axis=0)
        return totals


def confusion_table(
    truth: ArrayLike | Sequence[ArrayLike],
    prediction: ArrayLike | Sequence[ArrayLike],
    *,
    labels: Sequence[int] | None = None,
    ignore_label: int | None = None,
    sample_weight: ArrayLike | None = None,
) -> ConfusionTable:
    """Count pixels by true and predicted class, over one label map or a whole sequence.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        An array is one map. A list, a tuple or an object array is a sequence of maps, whose sizes
        may differ. Maps may be anything that ``np.asarray`` reads; they are read one at a time.
        Pixels of void truth (negative) are dropped. A void prediction where the truth is known is
        an error, and it is counted.
    labels : sequence of int, optional
        The classes, in the order of the table's rows. None: all classes in truth or prediction.
        List them to include classes that do not occur. A true label that is not listed raises an
        error; a predicted label that is not listed counts as void.
    ignore_label : int, optional
        One more value that means void, such as 255.
    sample_weight : array-like, (n_maps,), optional
        The weight of each map; the counts are then float64.

    Returns
    -------
    ConfusionTable

    Raises
    ------
    TypeError
        A label map does not hold integers, or an argument is neither a map nor a sequence.
    ValueError
        The numbers of maps or the shapes of a pair differ; a sequence is empty; a true label is
        not in ``labels``; or ``labels`` or ``sample_weight`` is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import confusion_table
    >>> truth, prediction = np.array([[1, 1, 7, 255]]), np.array([[1, 7, -1, 1]])
    >>> table = confusion_table(truth, prediction, ignore_label=255)
    >>> table.labels.tolist()
    [1, 7]
    >>> table.counts.tolist()
    [[1, 1, 0], [0, 0, 1]]
    """
    tables = image_tables(truth, prediction, labels=labels, ignore_label=ignore_label)
    if sample_weight is None:
        return add_tables(tables)
    unweighted = list(tables)
    weights = check_weights(sample_weight, len(unweighted))
    return add_tables(table * w for table, w in zip(unweighted, weights, strict=True))


def add_tables(tables: Iterable[ConfusionTable]) -> ConfusionTable:
    """Add at least one table."""
    return reduce(ConfusionTable.__add__, tables)


def image_tables(
    truth: Any, prediction: Any, *, labels: Sequence[int] | None, ignore_label: int | None
) -> Iterator[ConfusionTable]:
    """Yield the table of each pair of maps."""
    listed = check_labels(labels, ignore_label)
    for name, true_map, predicted_map in label_map_pairs(truth, prediction, ignore_label):
        table = _count(true_map, predicted_map)
        if listed is not None:
            check_listed(table.labels[table.counts.any(axis=1)], listed, name)
            table = table.over(listed)
        yield table


def _count(truth: NDArray[np.int64], prediction: NDArray[np.int64]) -> ConfusionTable:
    valid = truth >= 0
    rows, columns = truth[valid], prediction[valid]
    size = int(max(rows.max(initial=-1), columns.max(initial=-1))) + 1
    if size <= _MAX_DENSE_LABELS:
        found = np.arange(size)
    else:
        found = np.unique(np.concatenate([rows, columns[columns >= 0]]))
        size = len(found)
        rows = np.searchsorted(found, rows)
        columns = np.where(columns < 0, -1, np.searchsorted(found, columns))
    columns = np.where(columns < 0, size, columns)
    cells = np.bincount(rows * (size + 1) + columns, minlength=size * (size + 1))
    counts = cells.reshape(size, size + 1).astype(np.int64, copy=False)
    seen = counts.any(axis=1) | counts[:, :size].any(axis=0)
    return ConfusionTable(counts[np.ix_(seen, np.append(seen, True))], found[seen])


def class_mean(scores: NDArray[np.float64], absent: str = "exclude") -> float:
    """Return the mean of the scores of classes, where NaN marks an absent class.

    The mean is NaN if no class is left.
    """
    check_option(absent, "absent", ABSENT)
    if absent == "exclude":
        scores = scores[~np.isnan(scores)]
    else:
        scores = np.nan_to_num(scores, nan=float(absent == "one"))
    return float(scores.mean()) if scores.size else float("nan")


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    out = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=out, where=np.asarray(whole) > 0)
    return out


def label_map_pairs(
    truth: Any, prediction: Any, ignore_label: int | None
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (name of the true map, true map, predicted map), void as -1, one pair at a time."""
    single = not is_sequence(truth, "truth")
    if single != (not is_sequence(prediction, "prediction")):
        raise TypeError(
            "one of truth and prediction is a single label map (an array), and the other is a "
            "sequence of maps (a list); pass two maps, or two sequences of equal length. Convert "
            "an array that stacks several maps by list(stack)."
        )
    if single:
        truth, prediction = [truth], [prediction]
    if len(truth) != len(prediction) or len(truth) == 0:
        raise ValueError(
            f"truth has {len(truth)} label maps and prediction has {len(prediction)}; expected "
            f"the same number, at least one."
        )
    for index in range(len(truth)):
        names = [part if single else f"{part}[{index}]" for part in ("truth", "prediction")]
        maps = [
            as_label_map(part[index], ignore_label=ignore_label, name=name)
            for part, name in zip((truth, prediction), names, strict=True)
        ]
        if maps[0].shape != maps[1].shape or maps[0].ndim == 0:
            raise ValueError(
                f"{names[0]} has shape {maps[0].shape} and {names[1]} has shape {maps[1].shape}; "
                f"expected two label maps of the same shape, with at least one axis."
            )
        yield names[0], maps[0], maps[1]


def is_sequence(maps: Any, name: str) -> bool:
    """Return whether ``maps`` is a sequence of label maps (list, tuple, object array or lazy)."""
    if isinstance(maps, list | tuple):
        return True
    if isinstance(maps, np.ndarray):
        return bool(maps.dtype.kind == "O")
    if hasattr(maps, "__array__"):
        return False
    if isinstance(maps, str | Mapping | type) or not (
        hasattr(maps, "__len__") and hasattr(maps, "__getitem__")
    ):
        raise TypeError(
            f"{name} is of type {type(maps).__name__}; expected a label map (an array of "
            f"integers) or a sequence of label maps such as a list."
        )
    return True


def check_labels(
    labels: Sequence[int] | None, ignore_label: int | None
) -> NDArray[np.int64] | None:
    """Check the parameter ``labels``: different classes, none of them void."""
    if ignore_label is not None:
        check_number(ignore_label, "ignore_label", integer=True)
    if labels is None:
        return None
    listed = as_listed(labels)
    if listed.size == 0:
        raise ValueError(f"labels={labels!r}; expected a list of class labels, such as [0, 1, 2].")
    if listed.min() < 0 or (ignore_label is not None and ignore_label in listed):
        raise ValueError(
            f"labels={labels!r} lists a value that means void (negative, or "
            f"ignore_label={ignore_label}); expected classes only: remove it."
        )
    if len(np.unique(listed)) < len(listed):
        raise ValueError(f"labels={labels!r} lists a class twice; expected each class once.")
    return listed


def as_listed(labels: ArrayLike) -> NDArray[np.int64]:
    """Convert a list of integers, which may be empty, to int64."""
    listed = as_numbers(labels, "labels", expected="a list of class labels, such as [0, 1, 2]")
    if listed.ndim != 1 or (listed.size and listed.dtype.kind not in "ui"):
        raise ValueError(f"labels={labels!r}; expected a list of class labels, such as [0, 1, 2].")
    if listed.size and int(listed.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"labels lists {listed.max()}; expected at most 2**63 - 1.")
    return listed.astype(np.int64)


def check_listed(found: NDArray[np.int64], listed: NDArray[np.int64], name: str) -> None:
    """Raise an error for true labels that are not among the listed classes."""
    unknown = np.setdiff1d(found, listed)
    if unknown.size:
        raise ValueError(
            f"{name} holds the labels {unknown.tolist()}, which labels={listed.tolist()} lacks; "
            f"add them to labels, or pass the value that means void as ignore_label=."
        )


def check_weights(sample_weight: ArrayLike, n_maps: int) -> NDArray[np.float64]:
    """Check that there is one finite weight >= 0 for each map."""
    weights = as_numbers(sample_weight, "sample_weight", expected="one weight for each map")
    if weights.shape != (n_maps,):
        raise ValueError(
            f"sample_weight has shape {weights.shape}; expected one weight for each of the "
            f"{n_maps} label maps, ({n_maps},)."
        )
    if not bool((np.isfinite(weights) & (weights >= 0)).all()):
        raise ValueError("sample_weight holds negative, NaN or infinite weights; expected >= 0.")
    if weights.size and float(weights.max()) > LARGEST:
        raise ValueError(
            f"sample_weight holds {float(weights.max()):g}; expected at most {LARGEST:g}, because "
            f"sums of larger weights overflow: divide all weights by the largest."
        )
    return weights.astype(np.float64)
