"""Probabilities of scikit-learn's classifiers, from any number of threads."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from sys import flags
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

#: scikit-learn sets the filters of warnings for a while, which before Python 3.14 are those of all
#: threads: two at once leave them changed, or see them empty.
_ALONE: AbstractContextManager[Any] = (
    nullcontext() if getattr(flags, "context_aware_warnings", False) else threading.Lock()
)


#: Fewer rows than this are not worth a thread.
_ROWS_PER_THREAD = 1 << 12


def classifier_proba(
    classifier: Any, rows: NDArray[Any], n_jobs: int | None = None
) -> NDArray[Any]:
    """What ``classifier.predict_proba(rows)`` gives, rows ``(n, F)``, in the same bits.

    It does not depend on the number of threads that a forest uses, ``n_jobs`` or else its own:
    they share the rows, where scikit-learn's share the trees and add up their votes in any order.
    """
    if _is_plain_forest(classifier, rows):
        n_threads = effective_n_jobs(classifier.n_jobs if n_jobs is None else n_jobs)
        return _forest_proba(classifier, np.ascontiguousarray(rows, dtype=np.float32), n_threads)
    with _ALONE:
        return np.asarray(classifier.predict_proba(rows))


def _is_plain_forest(classifier: Any, rows: NDArray[Any]) -> bool:
    """Whether nothing has to be checked, or complained about, before trees are asked."""
    return (
        type(classifier) in (RandomForestClassifier, ExtraTreesClassifier)
        and getattr(classifier, "n_outputs_", 0) == 1
        and not hasattr(classifier, "feature_names_in_")
        and rows.shape[1:] == (classifier.n_features_in_,)
        and rows.dtype == np.float32
        and bool(np.isfinite(rows).all())
    )


def _forest_proba(forest: Any, rows: NDArray[np.float32], n_threads: int) -> NDArray[np.float64]:
    n_parts = max(1, min(n_threads, len(rows) // _ROWS_PER_THREAD))
    parts = np.array_split(rows, n_parts)
    if n_parts == 1:
        return _mean_of_trees(forest, rows)
    found = Parallel(n_jobs=n_parts, require="sharedmem")(
        delayed(_mean_of_trees)(forest, part) for part in parts
    )
    return np.concatenate(found)


def _mean_of_trees(forest: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    total = np.zeros((len(rows), forest.n_classes_))
    for tree in forest.estimators_:
        total += tree.predict_proba(rows, check_input=False)
    total /= len(forest.estimators_)
    return total
