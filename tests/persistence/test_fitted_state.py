"""Loaded estimators equal the saved ones; numbers that would break compiled code are refused."""

import importlib

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.svm import SVC, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier

from hybridseg import Blend, StackedSegmenter, load, save
from hybridseg.persistence import fitted_state
from tests.persistence.archives_made import path_for, with_arrays, with_schema
from tests.subjects import halves, pixels

X, Y = halves()


ROWS = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)


TARGETS = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0)


CLASSIFIERS = {
    "forest": RandomForestClassifier(3, random_state=0),
    "pruned": RandomForestClassifier(3, ccp_alpha=0.02, max_leaf_nodes=9, random_state=0),
    "extra": ExtraTreesClassifier(3, random_state=0),
    "tree": DecisionTreeClassifier(random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=2),
    "histograms": HistGradientBoostingClassifier(max_iter=2),
    "categories": make_pipeline(
        KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"),
        HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]),
    ),
    "neighbors": KNeighborsClassifier(),
    "ball tree": KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"),
    "brute": KNeighborsClassifier(algorithm="brute"),
    "radius": RadiusNeighborsClassifier(9.0),
    "support vectors": SVC(),
    "nu": NuSVC(nu=0.1),
    "scaled": make_pipeline(StandardScaler(), MLPClassifier((5,), max_iter=300)),
    "logistic": LogisticRegression(),
    "gradient": SGDClassifier(loss="log_loss"),
    "calibrated": CalibratedClassifierCV(LinearSVC()),
    "isotonic": CalibratedClassifierCV(GaussianNB(), method="isotonic"),
    "gaussian process": GaussianProcessClassifier(),
    "bagging": BaggingClassifier(n_estimators=3, max_features=0.5, random_state=0),
    "adaptive": AdaBoostClassifier(n_estimators=3),
    "selected": make_pipeline(SelectKBest(k=2), GaussianNB()),
    "outliers": IsolationForest(n_estimators=3, max_features=0.5, random_state=0),
}


def quiet(action):
    """The result of an action without its warnings, such as those of an MLP with few steps."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return action()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_predicts_the_same_bits(tmp_path, name):
    model = quiet(lambda: clone(CLASSIFIERS[name]).fit(ROWS, TARGETS))
    found = load(save(model, path_for(tmp_path)))
    method = "predict_proba" if hasattr(model, "predict_proba") else "decision_function"
    np.testing.assert_array_equal(getattr(model, method)(ROWS), getattr(found, method)(ROWS))


def attribute(name, change):
    def changed(model):
        setattr(model, name, change(getattr(model, name)))

    return changed


def first_predictor(name, value):
    def changed(model):
        model[-1]._predictors[0][0].nodes[name][0] = value

    return changed


def by_category(model):
    """Make all nodes split by categories, which only one feature has."""
    for trees in model[-1]._predictors:
        for tree in trees:
            tree.nodes["is_categorical"][:] = 1


HARMED = {
    "neighbors far": ("brute", attribute("_y", lambda y: y + 10**6)),
    "neighbors few": ("brute", attribute("_y", lambda y: y[:5])),
    "neighbors narrow": ("brute", attribute("_fit_X", lambda rows: rows[:, :1].copy())),
    "neighbors many": ("brute", attribute("n_neighbors", lambda n: 10**6)),
    "neighbors of none": ("neighbors", attribute("_fit_X", lambda rows: rows[:3])),
    "vectors narrow": ("support vectors", attribute("support_vectors_", lambda v: v[:, :1].copy())),
    "vectors few": ("support vectors", attribute("support_vectors_", lambda v: v[:2])),
    "vectors counted": ("support vectors", attribute("_n_support", lambda n: n + 10**6)),
    "coefficients": ("support vectors", attribute("_dual_coef_", lambda c: c[:1])),
    "intercepts": ("support vectors", attribute("_intercept_", lambda c: c[:1])),
    "impl": ("support vectors", attribute("_impl", lambda _: "epsilon_svr")),
    "boosting wide": (
        "boosting",
        attribute("estimators_", lambda e: np.concatenate([e, e, e, e], axis=1)),
    ),
    "boosting narrow": ("boosting", attribute("n_features_in_", lambda _: 1)),
    "forest narrow": ("forest", attribute("n_features_in_", lambda _: 1)),
    "forest none": ("forest", attribute("classes_", lambda c: c[:1])),
    "histograms far": ("categories", first_predictor("left", 10**6)),
    "histograms feature": ("categories", first_predictor("feature_idx", 10**6)),
    "histograms by category": ("categories", by_category),
    "subsets": ("outliers", attribute("estimators_features_", lambda f: [g + 10**6 for g in f])),
    "coefficients of none": ("logistic", attribute("coef_", lambda c: c[:, :1])),
}


@pytest.mark.parametrize("name", HARMED)
def test_numbers_that_lead_out_of_arrays_are_refused(tmp_path, monkeypatch, name):
    which, harm = HARMED[name]
    model = quiet(lambda: clone(CLASSIFIERS[which]).fit(ROWS, TARGETS))
    harm(model)
    monkeypatch.setattr("hybridseg.persistence.model_file.predicts_a_row", lambda parts: True)
    path = save(model, path_for(tmp_path))
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"model\.hybridseg.*tampered with"):
        load(path)


def test_trees_of_points_are_as_they_would_be_made_again(tmp_path):
    model = KNeighborsClassifier(algorithm="kd_tree").fit(ROWS, TARGETS)
    path = save(model, path_for(tmp_path))

    def change(array):
        return array + 1000 if array.shape == (90,) and array.dtype.kind == "i" else None

    with_arrays(path, change)
    with pytest.raises(ValueError, match="tampered with"):
        load(path)


def test_positions_of_random_states(tmp_path):
    model = RandomForestClassifier(3, random_state=np.random.RandomState(0)).fit(ROWS, TARGETS)
    path = save(model, path_for(tmp_path))
    with_schema(path, lambda schema: position_far(schema) or schema)
    with pytest.raises(ValueError, match="broken RandomState: its position is out of range"):
        load(path)


def position_far(part):
    if isinstance(part, dict):
        if "pos" in part and "__loader__" in part["pos"]:
            part["pos"]["content"] = "1000000"
            part["pos"].pop("__id__")
        for inner in part.values():
            position_far(inner)
    elif isinstance(part, list):
        for inner in part:
            position_far(inner)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("classes_", [0.0, 1.0, 2.0]),
        ("classes_", [[0, 1, 2]]),
        ("classes_", [2, 1, 0]),
        ("classes_", [-1, 0, 1]),
        ("n_channels_in_", 0),
        ("spatial_ndim_", 7),
        ("features_", 3),
    ],
)
def test_segmenters_that_are_none(tmp_path, name, values):
    model = pixels().fit(X, Y)
    setattr(model, name, np.array(values) if isinstance(values, list) else values)
    path = save(model, path_for(tmp_path))
    with pytest.raises(ValueError, match="holds a broken PixelClassifier"):
        load(path)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("classes_", np.array([0, 1]), "its segmenters have other classes"),
        ("classes_", np.array([2, 1, 0]), "negative or not sorted"),
        ("segmenters_", [], "it has no segmenters"),
        ("names_", ["a", "b"], "its names are not those of its segmenters"),
        ("names_", [3], "its names are not those of its segmenters"),
        ("weights_", np.ones((1, 2)), "its weights_ is for other segmenters or classes"),
        ("weights_", np.full((1, 3), np.nan), "its weights_ is not finite"),
        ("bias_", np.zeros(4), "its bias_ is for other segmenters or classes"),
        ("n_channels_in_", 0, "its number of channels is out of range"),
        ("spatial_ndim_", 7, "its number of spatial axes"),
        ("alpha", -1.0, "'alpha' parameter"),
    ],
)
def test_blends_that_are_none(tmp_path, name, value, match):
    model = Blend([("a", pixels())], "equal").fit(X, Y)
    setattr(model, name, value)
    path = save(model, path_for(tmp_path))
    with pytest.raises(ValueError, match=match):
        load(path)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("features_", 3, "its features_ is not callable"),
        ("classes_", np.array([0, 1, 2, 3]), "its final classifier has too few features"),
        ("final_classifier_", GaussianNB().fit(ROWS, TARGETS + 1), "its indices are out of range"),
    ],
)
def test_stacks_that_are_none(tmp_path, name, value, match):
    model = StackedSegmenter([("a", pixels())], GaussianNB(), passthrough=False, cv=2).fit(X, Y)
    setattr(model, name, value)
    path = save(model, path_for(tmp_path))
    with pytest.raises(ValueError, match=match):
        load(path)


def test_checks_name_classes_that_exist():
    """Otherwise a class that moves would silently lose its check."""
    for name in fitted_state._CHECKS:
        module, _, kind = name.rpartition(".")
        if module.startswith("hybridseg"):
            assert hasattr(importlib.import_module(module), kind), name
