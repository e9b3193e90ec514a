"""A model file that was damaged or made to harm is refused: no crash, no hang, no full memory."""

import importlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile

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

from hybridseg import DenseCRF, load, save
from hybridseg.persistence import fitted_state
from tests.persistence.test_model_file import members, path_for, with_schema, written
from tests.subjects import deep, halves, pixels

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
    """What an action gives; MLPs of few steps and the like warn."""
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


# -- trees, before they are made -----------------------------------------------------------------


def inner_of(path):
    return members(io.BytesIO(members(path)["model.skops"]))


def with_inner(path, inner):
    buffer = written(io.BytesIO(), inner)
    return written(path, members(path) | {"model.skops": buffer.getvalue()})


def as_npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_arrays(path, change):
    """The file with each array ``change(array)``; None leaves it."""
    inner = inner_of(path)
    for name in [name for name in inner if name.endswith(".npy")]:
        found = change(np.load(io.BytesIO(inner[name])))
        if found is not None:
            inner[name] = as_npy(found)
    return with_inner(path, inner)


def nodes_of(change):
    """A change of the arrays that are nodes of trees."""

    def changed(array):
        names = array.dtype.names
        return change(array.copy()) if names and "left_child" in names else None

    return changed


def put(name, where, value):
    def change(nodes):
        nodes[name][where] = value
        return nodes

    return nodes_of(change)


BROKEN_TREES = {
    "no axis": nodes_of(lambda nodes: nodes[0]),
    "two axes": nodes_of(lambda nodes: nodes[None]),
    "empty": nodes_of(lambda nodes: nodes[:0]),
    "short": nodes_of(lambda nodes: nodes[:-1]),
    "long": nodes_of(lambda nodes: np.concatenate([nodes, nodes])),
    "plain": nodes_of(lambda nodes: nodes["left_child"].copy()),
    "far child": put("left_child", 0, 10**6),
    "negative child": put("right_child", 0, -7),
    "circle": put("left_child", 0, 0),
    "two parents": put("left_child", 0, 2),
    "feature beyond": put("feature", 0, 10**6),
    "negative feature": put("feature", 0, -2),
    "no threshold": put("threshold", 0, np.nan),
    "values of no axis": lambda array: np.float64(0) if array.ndim == 3 else None,
    "values too few": lambda array: array[1:] if array.ndim == 3 else None,
    "values too narrow": lambda array: array[..., 1:].copy() if array.ndim == 3 else None,
    "values of no number": lambda array: array * np.nan if array.ndim == 3 else None,
    "values of no shares": lambda array: array + 1 if array.ndim == 3 else None,
    "values of another kind": lambda array: array.astype("f4") if array.ndim == 3 else None,
    "everything of no axis": lambda array: np.zeros((), array.dtype),
    "everything empty": lambda array: np.zeros(0, array.dtype),
}


@pytest.fixture
def forest(tmp_path):
    return save(pixels().fit(X, Y), path_for(tmp_path))


@pytest.mark.parametrize("name", BROKEN_TREES)
def test_broken_trees_are_refused(forest, name):
    with_arrays(forest, BROKEN_TREES[name])
    with pytest.raises(ValueError, match=r"model\.hybridseg.*(broken|tampered with)"):
        load(forest)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_depth", value) for value in (0, 10**9, -1, "x", None)),
        *(("node_count", value) for value in (1, 10**9, -1, "x", None)),
    ],
)
def test_trees_that_say_other_than_they_are(forest, name, value):
    def change(schema):
        for tree in trees_in(schema):
            tree["content"]["content"][name]["content"] = json.dumps(value)
            tree["content"]["content"][name].pop("__id__")

    with_schema(forest, change)
    with pytest.raises(ValueError, match="holds a broken decision tree"):
        load(forest)


def trees_in(part):
    if isinstance(part, dict):
        if part.get("__loader__") == "TreeNode":
            yield part
        for inner in part.values():
            yield from trees_in(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from trees_in(inner)


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("value", [0, -1, 2, 10**6, 10**30, "x", None])
def test_trees_of_other_counts(forest, place, value):
    def change(schema):
        for tree in trees_in(schema):
            part = tree["__reduce__"]["args"]["content"][place]
            part["content"] = json.dumps(value)
            part.pop("__id__")

    with_schema(forest, change)
    with pytest.raises(ValueError, match="decision tree"):
        load(forest)


def test_parts_of_a_tree_are_its_own(forest):
    """skops makes one object for each number, however often it is written."""

    def change(schema):
        first, second, *_ = trees_in(schema)
        second["content"]["__id__"] = first["content"]["__id__"]
        second["__reduce__"]["args"]["__id__"] = first["__reduce__"]["args"]["__id__"]

    with_schema(forest, change)
    with pytest.raises(ValueError, match="decision tree: its parts are another's"):
        load(forest)


# -- other numbers that compiled code follows ----------------------------------------------------


def attribute(name, change):
    def changed(model):
        setattr(model, name, change(getattr(model, name)))

    return changed


def first_predictor(name, value):
    def changed(model):
        model[-1]._predictors[0][0].nodes[name][0] = value

    return changed


def by_category(model):
    """All its nodes ask for categories, which one feature alone has."""
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


# -- archives and sizes --------------------------------------------------------------------------


def test_compressed_entries_are_refused(forest):
    contents = members(forest)
    with zipfile.ZipFile(forest, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="entry 'manifest.json' is compressed"):
        load(forest)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in inner_of(written(forest, contents)).items():
            archive.writestr(name, content)
    written(forest, contents | {"model.skops": buffer.getvalue()})
    with pytest.raises(ValueError, match="entry '.*' is compressed"):
        load(forest)


def test_unexpected_entries_are_refused(forest):
    contents = members(forest)
    for name in ("../evil", "/evil", "evil", "networks/0.safetensors", "networks/7.safetensors"):
        written(forest, contents | {name: b"evil"})
        with pytest.raises(ValueError, match="tampered with: it has (the entries|networks that)"):
            load(forest)
    with_inner(written(forest, contents), inner_of(forest) | {"evil.npy": b"evil"})
    with pytest.raises(ValueError, match="nothing names the entries"):
        load(forest)


@pytest.mark.parametrize("shape", ["(99999999999,)", "(-5,)", "((((", "(1, 'a')", "(5e9,)", "0"])
def test_arrays_that_ask_for_more_than_there_is(forest, shape):
    inner = inner_of(forest)
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    lie = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()
    name = next(name for name in inner if name.endswith(".npy"))
    with_inner(forest, inner | {name: lie})
    with pytest.raises(ValueError, match=f"broken.*{name}"):
        load(forest)


def test_lists_within_lists_do_not_multiply(forest):
    """Each list holds the one before ten times, by its number: 10^30 values if they were made."""

    def change(schema):
        part = {"__loader__": "JsonNode", "__module__": "x", "__class__": "x", "content": "1"}
        for number in range(30):
            again = [dict(part, content=[])] * 9 if number else [part] * 9
            part = {
                "__loader__": "ListNode",
                "__module__": "builtins",
                "__class__": "list",
                "__id__": 10**9 + number,
                "content": [part, *again],
            }
        schema["content"]["content"]["evil"] = part

    with_schema(forest, change)
    with pytest.raises(ValueError, match="two objects have the number"):
        load(forest)


def test_deep_nesting_is_refused(forest):
    contents = members(forest)
    text = b'{"hybridseg model": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(ValueError, match="RecursionError"):
        load(written(forest, contents | {"manifest.json": text}))
    node = '{"__loader__":"ListNode","__module__":"builtins","__class__":"list","content":['
    text = '{"protocol":2,' + node[1:] + node * 100_000 + "]}" * 100_000 + "]}"
    with_inner(written(forest, contents), inner_of(forest) | {"schema.json": text.encode()})
    with pytest.raises(ValueError, match="RecursionError"):
        load(forest)


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", 10**6), ("width", -1), ("depth", 10**6), ("depth", 30), ("x", 1), ("width", "x")],
)
def test_networks_take_no_more_than_their_file(tmp_path, name, value):
    model = deep(max_epochs=1).fit(X, Y)
    options = {"width": 4, "depth": 2}
    model.set_params(network_options=options | {name: value})
    path = save(model, path_for(tmp_path))
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"model\.hybridseg.*do not fit the network"):
        load(path)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["networks"].append(3),
        lambda m: m["networks"][0].update(kind="x"),
        lambda m: m["networks"][0].update(lr="x"),
        lambda m: m["networks"][0].update(history=[3]),
        lambda m: m["networks"][0].update(frozen=None),
        lambda m: m.update(networks={}),
        lambda m: m.update(versions=[]),
    ],
)
def test_manifests_that_say_otherwise(tmp_path, change):
    from tests.persistence.test_model_file import rewritten

    path = save(deep(max_epochs=1).fit(X, Y), path_for(tmp_path))
    with pytest.raises(ValueError, match=r"model\.hybridseg"):
        load(rewritten(path, change))


# -- saving ---------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import hybridseg
from hybridseg import DenseCRF
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
hybridseg.save(DenseCRF(), sys.argv[1])
"""


@pytest.mark.skipif(os.name == "nt", reason="processes end in other ways")
def test_what_a_kill_leaves_is_removed_by_the_next_save(tmp_path):
    path = save(DenseCRF(n_iter=7), path_for(tmp_path))
    save(DenseCRF(), tmp_path / "model.hybridseg.other")
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -9
    assert load(path).n_iter == 7
    left = [found for found in os.listdir(tmp_path) if found.endswith(".draft")]
    assert len(left) == 1
    save(DenseCRF(), tmp_path / "model.hybridseg.other")
    assert (tmp_path / left[0]).exists()  # another name's
    save(DenseCRF(n_iter=8), path)
    assert sorted(os.listdir(tmp_path)) == ["model.hybridseg", "model.hybridseg.other"]
    assert load(path).n_iter == 8


def test_a_file_reaches_the_disk_before_its_name(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("sync") or sync(handle))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("name") or replace(*names))
    save(DenseCRF(), path_for(tmp_path))
    assert done[:2] == ["sync", "name"]
    assert os.name == "nt" or done == ["sync", "name", "sync"]  # the directory's


# -- by chance -----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory as Linux does")
def test_changed_files_never_fail(tmp_path):
    model_files = pytest.importorskip("benchmarks.reliability.model_files")
    pytest.importorskip("torch")
    files = model_files.write_models(tmp_path)
    counts = model_files.run(files, np.random.default_rng(0), tmp_path, seconds=60, at_most=90)
    assert counts.total() > 40
    failed = {key: n for key, n in counts.items() if key[1] == "failed"}
    assert not failed


def test_checks_name_classes_that_exist():
    """A class that moves would lose its check without a word."""
    for name in fitted_state._CHECKS:
        module, _, kind = name.rpartition(".")
        if module.startswith("hybridseg"):
            assert hasattr(importlib.import_module(module), kind), name
