"""Checks of the estimators in a model file, after the objects are made.

Compiled code of scikit-learn uses numbers in fitted estimators as indices, without checks of its
own. This module checks those numbers. Decision trees, which scikit-learn copies when it makes them,
are checked before, in :mod:`hybridseg.persistence.schema`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridseg.base import SKLEARN_TYPES
from hybridseg.persistence.schema import check_nodes

#: The maximum length of a range; ranges in a file hold label values.
_MAX_RANGE_LENGTH = 1 << 24
#: Types that error messages call a decision tree: they hold the nodes of trees.
_TREES = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor", "Tree")


def check_state(parts: Sequence[tuple[Any, Any]]) -> None:
    """Refuse numbers that would make compiled code read outside its arrays.

    Parameters
    ----------
    parts : sequence of (owner, value)
        All objects in a model, each with the object that holds it.

    Raises
    ------
    ValueError
        A number is out of range; the message names the kind of estimator.
    """
    for owner, value in parts:
        for kind, check in _CHECKS.items():
            if any(f"{base.__module__}.{base.__name__}" == kind for base in type(value).__mro__):
                try:
                    check(value, owner)
                except Exception as error:  # attributes of other types raise errors of every kind
                    said = str(error) if isinstance(error, ValueError) else repr(error)
                    raise ValueError(
                        f"it holds a broken {_what(value)}: {said}; it was tampered with"
                    ) from error


def _what(value: Any) -> str:
    name = type(value).__name__
    return "decision tree" if name in _TREES or hasattr(value, "estimators_") else name


def check_parameters(parts: Sequence[tuple[Any, Any]]) -> None:
    """Refuse invalid parameters of fitted estimators of this package.

    ``fit`` refuses such parameters, so a fitted estimator that has one was changed afterwards.

    Raises
    ------
    ValueError
        A parameter is invalid; the message names it.
    """
    for _, value in parts:
        kinds = [f"{kind.__module__}.{kind.__name__}" for kind in type(value).__mro__]
        fitted = any(name.endswith("_") for name in getattr(value, "__dict__", ()))
        if fitted and any(
            _CHECKS.get(kind) in (_check_segmenter, _check_members) for kind in kinds
        ):
            try:
                value._validate_params()
            except Exception as error:  # values of other types raise errors of every kind
                raise ValueError(f"it has been tampered with: {error}") from error


def predicts_a_row(parts: Sequence[tuple[Any, Any]]) -> bool:
    """Return whether each fitted estimator of scikit-learn in a model predicts a row of zeros.

    An estimator that did so when it was saved, but does not after loading, was tampered with.
    """
    return all(
        _predicts(value)
        for owner, value in parts
        if _is_foreign(value) and not _is_foreign(owner) and "n_features_in_" in dir(value)
    )


def _is_foreign(value: Any) -> bool:
    return type(value).__module__.startswith("sklearn.") and hasattr(value, "get_params")


def _predicts(model: Any) -> bool:
    names = [name for name in ("predict_proba", "predict", "transform") if hasattr(model, name)]
    try:
        n_features = model.n_features_in_
        if not names or not 0 < n_features < 1 << 20:
            return not names
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = getattr(model, names[0])(np.zeros((1, n_features), np.float32))
        if names[0] == "predict_proba" and isinstance(found, np.ndarray):
            shape = (1, len(model.classes_))
            return found.shape == shape and bool(np.isfinite(found).all())
    except Exception:  # models that were tampered with raise errors of every kind
        return False
    return True


def _check_tree(tree: Any, owner: Any) -> None:
    _require(getattr(owner, "tree_", None) is tree, "it belongs to no estimator")
    _require(tree.n_features == owner.n_features_in_, "its estimator has other features")
    if hasattr(owner, "classes_"):
        fractions = tree.value
        sums = fractions.sum(axis=2)
        good = (fractions >= 0).all() and (abs(sums - 1) < 1e-6).all()
        _require(good, "its fractions of classes do not sum to 1")


def _check_ensemble(model: Any, _owner: Any) -> None:
    """Check each tree's number of features; rows are checked against the ensemble's number only."""
    if not hasattr(model, "estimators_"):
        return  # never fitted
    trees = np.ravel(np.array(model.estimators_, dtype=object))
    subsets = getattr(model, "estimators_features_", None)
    if subsets is None:
        subsets = [np.arange(model.n_features_in_)] * len(trees)
    for tree, features in zip(trees, subsets, strict=True):
        _require(tree.n_features_in_ == len(features), "its trees have other features")
        _check_indices(features, model.n_features_in_)


def _check_boosting(model: Any, owner: Any) -> None:
    if not hasattr(model, "estimators_"):
        return  # never fitted
    _check_ensemble(model, owner)
    trees = model.estimators_
    _require(isinstance(trees, np.ndarray) and trees.ndim == 2, "its trees are not in a 2-D array")
    for estimator in trees.ravel():
        tree = estimator.tree_
        _require(
            tree.n_outputs == 1 and tree.max_n_classes == 1,
            "its trees have several outputs or classes",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begun = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))
    _require(begun.shape == (1, trees.shape[1]), "its trees are for other classes")


def _check_histograms(model: Any, _owner: Any) -> None:
    if not hasattr(model, "_predictors"):
        return  # never fitted
    n_features = model.n_features_in_
    _require(not hasattr(model, "_in_fit") or not model._in_fit, "it is in the middle of fitting")
    by_category = model._bin_mapper.is_categorical_.astype(bool)
    _require(by_category.shape == (n_features,), "its categories are for other features")
    for feature in np.flatnonzero(by_category):
        known = np.asarray(model._bin_mapper.bin_thresholds_[feature])
        _require(((known >= 0) & (known < 256)).all(), "its categories are out of range")
    rows = model._preprocess_X(np.zeros((1, n_features)), reset=False)
    _require(rows.shape == (1, n_features), "its preprocessing makes another number of features")
    for predictor in (tree for trees in model._predictors for tree in trees):
        nodes = predictor.nodes
        _require(nodes.ndim == 1, "its nodes have more than one axis")
        leaf = nodes["is_leaf"].astype(bool)
        check_nodes(nodes["left"], nodes["right"], nodes["feature_idx"], leaf, n_features)
        _require(np.isfinite(nodes["value"]).all(), "its values are not finite")
        sets = nodes[nodes["is_categorical"].astype(bool) & ~leaf]
        _require(by_category[sets["feature_idx"]].all(), "a node takes numbers for categories")
        for found in (predictor.binned_left_cat_bitsets, predictor.raw_left_cat_bitsets):
            _require(
                found.ndim == 2 and found.shape[1] == 8, "its sets of categories have another shape"
            )
            _check_indices(sets["bitset_idx"], len(found))


def _check_predictor(tree: Any, owner: Any) -> None:
    held = [found for trees in getattr(owner, "_predictors", ()) for found in trees]
    _require(any(found is tree for found in held), "it belongs to no estimator")


def _check_support_vectors(model: Any, _owner: Any) -> None:
    if not hasattr(model, "support_"):
        return  # never fitted
    _require(
        not model._sparse and "_impl" not in vars(model),
        "it is for sparse data or has another solver",
    )
    vectors, support, counts = model.support_vectors_, model.support_, model._n_support
    n_rows, precomputed = len(support), model.kernel == "precomputed" or callable(model.kernel)
    wide = (0, 0) if precomputed else (n_rows, model.n_features_in_)
    _require(
        vectors.shape == wide or (precomputed and vectors.ndim == 2),
        "its vectors have another shape",
    )
    _check_indices(support, model.shape_fit_[0])
    n_classes, n_pairs = 2, 1
    if model._impl in ("c_svc", "nu_svc"):
        n_classes = len(model.classes_)
        n_pairs = n_classes * (n_classes - 1) // 2
        _require((counts >= 0).all() and counts.sum() == n_rows, "its numbers of vectors are wrong")
    _require(counts.shape == (n_classes,), "its vectors are for other classes")
    _require(
        model._dual_coef_.shape == (n_classes - 1, n_rows), "its coefficients have another shape"
    )
    _require(model._intercept_.shape == (n_pairs,), "its intercepts are for other classes")
    _require(
        {len(model._probA), len(model._probB)} <= {0, n_pairs},
        "its probabilities are for other classes",
    )
    _require(len(model._probA) == len(model._probB), "its probabilities are incomplete")


def _check_neighbors(model: Any, _owner: Any) -> None:
    if not hasattr(model, "_fit_X"):
        return  # never fitted
    rows, targets = model._fit_X, getattr(model, "_y", None)
    _require(
        isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == model.n_features_in_,
        "its rows have other features",
    )
    _require(model.n_samples_fit_ == len(rows), "its number of rows is wrong")
    _require((getattr(model, "n_neighbors", None) or 0) <= len(rows), "it has too few rows")
    if targets is not None:
        _require(len(targets) == len(rows), "its numbers of rows and targets differ")
        if hasattr(model, "classes_"):
            several = model.outputs_2d_
            for column, classes in zip(
                targets.T if several else [targets],
                model.classes_ if several else [model.classes_],
                strict=True,
            ):
                _check_indices(column, len(classes))
    tree = model._tree
    if tree is not None:
        _require(np.asarray(tree.data).shape == rows.shape, "its tree is for other rows")


def _check_space_tree(tree: Any, _owner: Any) -> None:
    """Compare a tree of points with one made again: its points determine it completely."""
    state = tree.__getstate__()
    metric, weights = state[11], state[12]
    again = type(tree)(state[0], leaf_size=state[4], metric=metric, sample_weight=weights)
    for mine, theirs in zip(state[:8], again.__getstate__()[:8], strict=True):
        _require(np.array_equal(mine, theirs), "its nodes are not those of its points")


def _check_metric(metric: Any, _owner: Any) -> None:
    p, vector, *_ = metric.__getstate__()
    _require(np.isfinite(p) or p == np.inf, "its power is NaN or -infinity")
    _require(np.array_equal(vector, [0.0]), "it has weights")


def _check_clusters(model: Any, _owner: Any) -> None:
    if hasattr(model, "cluster_centers_"):
        shape = model.cluster_centers_.shape
        _require(
            len(shape) == 2 and shape[1] == model.n_features_in_, "its centers have another shape"
        )


def _check_random_state(state: Any, _owner: Any) -> None:
    _check_bit_generator(state.get_state(legacy=False))


def _check_generator(generator: Any, _owner: Any) -> None:
    _check_bit_generator(generator.bit_generator.state)


def _check_bit_generator(state: dict[str, Any]) -> None:
    """Check positions in the buffer of a generator, which NumPy uses without checks."""
    inner = state["state"]
    if "pos" in inner:
        _require(0 <= inner["pos"] <= len(inner["key"]), "its position is out of range")
    if "buffer_pos" in state:
        _require(0 <= state["buffer_pos"] <= len(state["buffer"]), "its position is out of range")


def _check_segmenter(model: Any, _owner: Any) -> None:
    held = vars(model)
    if not any(name.endswith("_") for name in held):
        return  # never fitted
    if held.get("classes_", ()) is None:
        return  # a refiner of Scenes without classes
    _check_classes(model.classes_)
    for name in ("estimator_", "segmenter_"):
        if name in held:
            _require(
                np.array_equal(model.classes_, held[name].classes_), f"its {name} has other classes"
            )
    needed = next(
        (_HELD[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in _HELD), ()
    )
    for name in needed:
        _require(name in held, f"it has no {name}")
    if needed:
        _check_axes(model)
    for name in ("features_", "superpixels_"):
        _require(callable(held.get(name, callable)), f"its {name} is not callable")
    if "classifier_" in held:
        known = np.asarray(model.classifier_.classes_)
        _require(known.ndim == 1, "its classifier has other classes")
        _check_indices(known, len(model.classes_))
    if "mean_" in held:
        for name in ("mean_", "std_"):
            values = np.asarray(held[name])
            _require(values.shape == (model.n_channels_in_,), f"its {name} is for other channels")
            _require(
                values.dtype == np.float32,
                f"its {name} has the dtype {values.dtype}; expected float32",
            )
            _require(np.isfinite(values).all(), f"its {name} is not finite")
        _require((np.asarray(model.std_) > 0).all(), "its std_ is not positive")
        _require(0 < model.temperature_ < np.inf, "its temperature_ is not positive")


def _check_axes(model: Any) -> None:
    _require(model.spatial_ndim_ in (2, 3), "its number of spatial axes is neither 2 nor 3")
    _require(0 < model.n_channels_in_ < 1 << 20, "its number of channels is out of range")


def _check_members(model: Any, _owner: Any) -> None:
    """Check a segmenter that combines several, such as Blend."""
    held = vars(model)
    if not any(name.endswith("_") for name in held):
        return  # never fitted
    _check_classes(model.classes_)
    _check_axes(model)
    n_members, n_labels = len(model.segmenters_), len(model.classes_)
    _require(n_members > 0, "it has no segmenters")
    _require(
        len(model.names_) == n_members and all(isinstance(name, str) for name in model.names_),
        "its names are not those of its segmenters",
    )
    for member in model.segmenters_:
        _check_classes(member.classes_)
        _require(
            np.isin(member.classes_, model.classes_).all(), "its segmenters have other classes"
        )
    if "final_classifier_" in held:
        known = np.asarray(model.final_classifier_.classes_)
        _require(known.ndim == 1, "its final classifier has other classes")
        _check_indices(known, n_labels)
        n_scores = n_members * n_labels
        n_columns = getattr(model.final_classifier_, "n_features_in_", n_scores)
        _require(n_columns >= n_scores, "its final classifier has too few features")
        _require(
            held["features_"] is None or callable(held["features_"]),
            "its features_ is not callable",
        )
    for name, shape in (("weights_", (n_members, n_labels)), ("bias_", (n_labels,))):
        if name in held:
            values = np.asarray(held[name])
            _require(values.shape == shape, f"its {name} is for other segmenters or classes")
            _require(np.isfinite(values).all(), f"its {name} is not finite")


def _check_classes(classes: Any) -> None:
    good = isinstance(classes, np.ndarray) and classes.ndim == 1 and classes.dtype.kind in "iu"
    _require(good and len(classes) > 0, "its classes are not a list of integers")
    _require(
        (classes >= 0).all() and (np.diff(classes) > 0).all(),
        "its classes are negative or not sorted",
    )


#: The attributes of a fitted segmenter, besides its classes.
_HELD = {
    "DeepSegmenter": ("net_", "mean_", "std_", "temperature_"),
    "PixelClassifier": ("classifier_", "features_"),
    "SuperpixelClassifier": ("classifier_", "features_", "superpixels_"),
}


def _check_range(values: range, _owner: Any) -> None:
    try:
        n_values = len(values)
    except OverflowError:
        n_values = _MAX_RANGE_LENGTH + 1
    _require(n_values <= _MAX_RANGE_LENGTH, "it is too long")


#: The check of each class by its full name; it applies to subclasses as well.
_CHECKS = {
    "builtins.range": _check_range,
    "hybridseg.base.Refiner": _check_segmenter,
    "hybridseg.base.Segmenter": _check_segmenter,
    "hybridseg.unary.cross_fit.CrossFit": _check_segmenter,
    "hybridseg.unary.members.MemberSegmenter": _check_members,
    "numpy.random._generator.Generator": _check_generator,
    "numpy.random.mtrand.RandomState": _check_random_state,
    SKLEARN_TYPES["clusters"]: _check_clusters,
    SKLEARN_TYPES["bagging"]: _check_ensemble,
    SKLEARN_TYPES["forest"]: _check_ensemble,
    SKLEARN_TYPES["boosting"]: _check_boosting,
    SKLEARN_TYPES["histogram boosting"]: _check_histograms,
    SKLEARN_TYPES["histogram predictor"]: _check_predictor,
    SKLEARN_TYPES["distance"]: _check_metric,
    SKLEARN_TYPES["neighbors"]: _check_neighbors,
    SKLEARN_TYPES["ball tree base"]: _check_space_tree,
    SKLEARN_TYPES["k-d tree base"]: _check_space_tree,
    SKLEARN_TYPES["support vectors"]: _check_support_vectors,
    SKLEARN_TYPES["tree"]: _check_tree,
}


def _check_indices(values: Any, size: int) -> None:
    found = np.asarray(values)
    _require(found.dtype.kind in "iub", "its indices are not integers")
    _require(((found >= 0) & (found < size)).all(), "its indices are out of range")


def _require(good: Any, complaint: str) -> None:
    if not good:
        raise ValueError(complaint)
