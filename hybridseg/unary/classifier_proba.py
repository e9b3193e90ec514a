"""Probabilities of scikit-learn's classifiers that do not depend on the number of threads."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from sys import flags
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

#: scikit-learn changes the warning filters during a call. Before Python 3.14 all threads share
#: these filters, so two calls at once can leave them changed: calls take this lock.
_WARNINGS_LOCK: AbstractContextManager[Any] = (
    nullcontext() if getattr(flags, "context_aware_warnings", False) else threading.Lock()
)


#: The minimum number of rows for which another thread is used.
_MIN_ROWS_PER_THREAD = 1 << 12


def classifier_proba(
    classifier: Any, rows: NDArray[Any], n_jobs: int | None = None
) -> NDArray[Any]:
    """Return ``classifier.predict_proba(rows)`` for rows ``(n, F)``, reproducibly.

    The result is the same, bit for bit, for any number of threads. The threads of a forest
    (``n_jobs``; None: the forest's own ``n_jobs``) divide the rows. In scikit-learn they divide
    the trees instead and add the votes in no fixed order.
    """
    if _is_plain_forest(classifier, rows):
        n_threads = effective_n_jobs(classifier.n_jobs if n_jobs is None else n_jobs)
        return _forest_proba(classifier, np.ascontiguousarray(rows, dtype=np.float32), n_threads)
    with _WARNINGS_LOCK:
        return np.asarray(classifier.predict_proba(rows))


def _is_plain_forest(classifier: Any, rows: NDArray[Any]) -> bool:
    """Return whether the trees can be called directly, without scikit-learn's checks."""
    return (
        type(classifier) in (RandomForestClassifier, ExtraTreesClassifier)
        and getattr(classifier, "n_outputs_", 0) == 1
        and not hasattr(classifier, "feature_names_in_")
        and rows.shape[1:] == (classifier.n_features_in_,)
        and rows.dtype == np.float32
        and bool(np.isfinite(rows).all())
    )


def _forest_proba(forest: Any, rows: NDArray[np.float32], n_threads: int) -> NDArray[np.float64]:
    n_parts = max(1, min(n_threads, len(rows) // _MIN_ROWS_PER_THREAD))
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
