"""A saved model predicts the same bits once it is loaded, and a file never runs code."""

import io
import json
import os
import pickle
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

import hybridseg
from hybridseg import DenseCRF, GraphCut, PixelClassifier, Scene, load, save
from hybridseg.features import PixelFeatures
from tests.persistence.archives_made import (
    members,
    path_for,
    rewritten,
    written,
)
from tests.persistence.models_made import X, Y, assert_same, own_deep, own_network, saved_without
from tests.subjects import REFINERS, SEGMENTERS, deep, pixels, superpixels


@pytest.mark.parametrize("name", SEGMENTERS)
def test_predicts_the_same_bits(tmp_path, name):
    model = SEGMENTERS[name]().fit(X, Y)
    found = load(save(model, path_for(tmp_path)))
    assert type(found) is type(model)
    assert_same(model, found)
    assert clone(found).fit(X, Y).score(X, Y) == pytest.approx(clone(model).fit(X, Y).score(X, Y))
    assert os.listdir(tmp_path) == ["model.hybridseg"]


@pytest.mark.parametrize("name", REFINERS)
def test_refiners_that_learn_nothing(tmp_path, name, rng):
    scenes = [Scene.from_logits(image, rng.normal(size=(*image.shape[:2], 3))) for image in X]
    found = load(save(REFINERS[name](), path_for(tmp_path)))
    assert_same(REFINERS[name](), found, scenes)


COMPOSED = {
    "pipeline": lambda: make_pipeline(superpixels(), DenseCRF(), GraphCut()),
    "search": lambda: GridSearchCV(
        make_pipeline(pixels(), DenseCRF()),
        {"densecrf__bilateral_color": [5.0, 20.0]},
        cv=KFold(3),
    ),
    "histograms": lambda: PixelClassifier(
        HistGradientBoostingClassifier(max_iter=5), features=PixelFeatures(sigmas=(1.0,))
    ),
    "boosting": lambda: PixelClassifier(
        GradientBoostingClassifier(n_estimators=3), features=PixelFeatures(sigmas=(1.0,))
    ),
    "deep pipeline": lambda: make_pipeline(deep(), DenseCRF(n_iter=2)),
    "deep search": lambda: GridSearchCV(
        make_pipeline(deep(), GraphCut()), {"graphcut__weight": [1.0, 5.0]}, cv=KFold(3)
    ),
    "deep refiner": lambda: DenseCRF(
        own_deep(from_torch("UNet", "hybridseg.networks"), {"width": 4})
    ),
}


def from_torch(name, module):
    return getattr(pytest.importorskip(module), name)


@pytest.mark.parametrize("name", COMPOSED)
def test_composed(tmp_path, name):
    model = COMPOSED[name]().fit(X, Y)
    found = load(save(model, path_for(tmp_path)))
    assert_same(model, found)
    if hasattr(model, "best_estimator_"):
        assert_same(model.best_estimator_, found.best_estimator_)
        assert found.best_params_ == model.best_params_
        np.testing.assert_array_equal(
            found.cv_results_["mean_test_score"], model.cv_results_["mean_test_score"]
        )


def test_unfitted_models_keep_their_parameters(tmp_path):
    model = make_pipeline(pixels(ignore_label=255), DenseCRF(n_iter=3))
    found = load(save(model, path_for(tmp_path)))
    assert repr(found) == repr(model)
    assert_same(clone(found).fit(X, Y), clone(model).fit(X, Y))


def test_saving_leaves_the_model_alone(tmp_path):
    model = make_pipeline(deep(), DenseCRF(n_iter=2)).fit(X, Y)
    net, module = model[0].net_, model[0].net_.module_
    before = model.predict_proba(X)
    save(model, path_for(tmp_path))
    assert model[0].net_ is net
    assert net.module_ is module
    for a, b in zip(before, model.predict_proba(X), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_the_parts_share_stays_shared(tmp_path):
    inner = FrozenEstimator(pixels().fit(X, Y))
    found = load(save(make_pipeline(DenseCRF(inner), GraphCut()), path_for(tmp_path)))
    assert_same(inner.estimator, found[0].estimator.estimator)


def test_parameters_of_a_deep_segmenter_that_are_objects(tmp_path):
    torch = pytest.importorskip("torch")
    from functools import partial

    from skorch.callbacks import EarlyStopping

    from hybridseg.losses import CrossEntropy, LovaszSoftmax

    model = deep(
        loss=CrossEntropy([1, 2, 3]) + 0.5 * LovaszSoftmax(),
        optimizer=partial(torch.optim.SGD, momentum=0.5),
        callbacks=[EarlyStopping(monitor="train_loss")],
        lr=0.01,
    ).fit(X, Y)
    found = load(save(model, path_for(tmp_path)))
    assert_same(model, found)
    assert found.loss.weights == (1.0, 0.5)
    assert found.loss.losses[0].class_weight == (1.0, 2.0, 3.0)
    assert found.optimizer.keywords == {"momentum": 0.5}
    assert_same(clone(model).fit(X, Y), clone(found).fit(X, Y))


def test_versions_are_recorded_and_a_mismatch_warns(saved):
    manifest = json.loads(members(saved)["manifest.json"])
    assert manifest["versions"]["hybridseg"] == hybridseg.__version__
    rewritten(saved, lambda m: m["versions"].update({"scikit-learn": "1.2.3", "torch": "0.1"}))
    with pytest.warns(UserWarning, match=r"saved with scikit-learn 1\.2\.3 \(here"):
        load(saved)
    rewritten(saved, lambda m: m.update({"hybridseg model": 99}))
    with pytest.raises(ValueError, match="has the format 99; this hybridseg reads 1"):
        load(saved)


def test_broken_files(saved, tmp_path):
    content = saved.read_bytes()
    for broken in (content[: len(content) // 2], content[:-30], b"", b"not a zip"):
        saved.write_bytes(broken)
        with pytest.raises(
            ValueError, match="is not a model that hybridseg.save wrote, or it is broken"
        ):
            load(saved)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    saved.write_bytes(flipped)
    with pytest.raises(ValueError, match="broken"):
        load(saved)
    with pytest.raises(ValueError, match="is not a model that hybridseg.save wrote"):
        load(written(saved, {"something.txt": b"else"}))
    with pytest.raises(FileNotFoundError, match="absent"):
        load(tmp_path / "absent")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_pickles_never_run(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(Bomb())
    saved.write_bytes(bomb)
    with pytest.raises(ValueError, match="is not a model that hybridseg.save wrote"):
        load(saved)
    save(pixels().fit(X, Y), saved)
    contents = members(saved)
    with pytest.raises(ValueError, match="estimators are broken"):
        load(written(saved, contents | {"model.skops": bomb}))
    inner = members(io.BytesIO(contents["model.skops"]))
    array = next(name for name in inner if name.endswith(".npy"))
    pickled = io.BytesIO()
    np.save(pickled, np.array([Bomb()]), allow_pickle=True)
    for evil in (bomb, pickled.getvalue()):
        model = written(io.BytesIO(), inner | {array: evil}).getvalue()
        with pytest.raises(ValueError, match="cannot be read .*or has been tampered with"):
            load(written(saved, contents | {"model.skops": model}))
    assert not (tmp_path / "exploded").exists()


def test_trees_that_lead_astray_are_refused(tmp_path):
    for name in ("pixels", "histograms", "boosting"):
        model = (COMPOSED.get(name) or pixels)().fit(X, Y)
        classifier = model.classifier_
        path = save(model, path_for(tmp_path))
        if name == "histograms":
            nodes = classifier._predictors[0][0].nodes
            nodes["left"][0] = 10**6
        else:
            tree = np.ravel(classifier.estimators_)[0].tree_
            state = tree.__getstate__()
            state["nodes"]["left_child"][0] = 10**6
            tree.__setstate__(state)
        with pytest.raises(ValueError, match="holds a broken decision tree"):
            load(save(model, path))
    forest = pixels().fit(X, Y)
    forest.classifier_.n_features_in_ = 1
    with pytest.raises(ValueError, match="holds a broken decision tree"):
        load(save(forest, path))


def doubled(colors, labels, rng):
    return 2 * colors, labels


def test_functions_of_ones_own_are_trusted_by_name(tmp_path):
    name = "tests.persistence.test_model_file.doubled"
    path = saved_without(deep(augment=doubled), tmp_path, f"holds {name}")
    with pytest.raises(TypeError, match=f"holds {name}, which"):
        load(path)
    assert load(path, trusted=[name]).augment is doubled
    with pytest.raises(TypeError, match="trusted='x' is text; expected a list"):
        load(path, trusted="x")


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="model is a list; expected an estimator"):
        save([1], path_for(tmp_path))
    with pytest.raises(TypeError, match="model holds what cannot be written without pickle"):
        save(pixels().set_params(classifier=(i for i in "ab")), path_for(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_search_over_networks_says_what_to_save(tmp_path):
    grid = {"network": [own_network(), own_network()]}
    search = GridSearchCV(own_deep(own_network()), grid, cv=KFold(2)).fit(X, Y)
    with pytest.raises(TypeError, match="a GridSearchCV whose results hold .* best_estimator_"):
        save(search, path_for(tmp_path))
    found = load(saved_without(search.best_estimator_, tmp_path), network=own_network())
    assert_same(search, found)


def test_without_skops_it_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    for call in (lambda: load(saved), lambda: save(DenseCRF(), saved)):
        with pytest.raises(ImportError, match="saving and loading models needs skops: pip install"):
            call()


def test_a_failed_save_leaves_the_file_before(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division"):
        save(DenseCRF(), saved)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1
