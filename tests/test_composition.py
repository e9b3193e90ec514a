"""Stages work in pipelines, searches, caches and routing, with images of several sizes."""

import pickle
import warnings

import imageio.v3 as iio
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline

from hybridseg import CrossFit, DenseCRF, GraphCut, GridCRF, Scene, SuperpixelClassifier
from hybridseg.features import SLIC
from hybridseg.metrics import mean_iou
from tests.subjects import deep, forest, halves, pixels, superpixels


@pytest.fixture
def data():
    return halves(((24, 32), (30, 22), (20, 26), (26, 20)))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_superpixels_then_crf(data):
    images, labels = data
    model = make_pipeline(SuperpixelClassifier(RandomForestClassifier(random_state=0)), DenseCRF())
    model.fit(images, labels)
    assert [m.shape for m in model.predict(images)] == [m.shape for m in labels]
    assert model.score(images, labels) > 0.8
    assert np.array_equal(model.classes_, [0, 1, 2])
    assert model.predict_proba(images)[1].shape == (30, 22, 3)


def test_network_then_crf_then_cut(data):
    images, labels = data
    model = make_pipeline(deep(), DenseCRF(), GraphCut()).fit(images, labels)
    assert [m.shape for m in model.predict(images)] == [m.shape for m in labels]
    assert not hasattr(model, "predict_proba")


@pytest.mark.parametrize("refiner", [DenseCRF, GraphCut, GridCRF])
@pytest.mark.parametrize("unary", [pixels, superpixels])
def test_inner_estimator_equals_two_steps(data, refiner, unary):
    images, labels = data
    one = refiner(estimator=unary()).fit(images, labels)
    two = make_pipeline(unary(), refiner()).fit(images, labels)
    assert same(one.predict(images), two.predict(images))
    assert same(one.classes_, two.classes_)
    if refiner is not GraphCut:
        assert same(one.predict_proba(images), two.predict_proba(images))


def test_three_deep(data):
    images, labels = data
    nested = GraphCut(DenseCRF(pixels())).fit(images, labels)
    piped = make_pipeline(pixels(), DenseCRF(), GraphCut()).fit(images, labels)
    assert same(nested.predict(images), piped.predict(images))


def test_grid_search_in_two_processes(data):
    images, labels = data
    model = Pipeline([("unary", superpixels()), ("crf", DenseCRF())])
    grid = {
        "unary__superpixels__n_segments": [30, 90],
        "unary__classifier__max_depth": [2, None],
        "crf__bilateral_weight": [0.0, 5.0],
    }
    with warnings.catch_warnings():
        # loky warns that a worker was restarted if memory is short
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
        search = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(images, labels)
    assert len(search.cv_results_["params"]) == 8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert set(search.best_params_) == set(grid)
    assert [m.shape for m in search.predict(images)] == [m.shape for m in labels]


def test_random_search_over_inner_estimator(data):
    images, labels = data
    search = RandomizedSearchCV(
        DenseCRF(pixels()),
        {"estimator__features__sigmas": [(1.0,), (1.0, 2.0)], "n_iter": [1, 5]},
        n_iter=3,
        cv=2,
        random_state=0,
    ).fit(images, labels)
    assert np.isfinite(search.best_score_)


def test_cross_validate(data):
    images, labels = data
    model = make_pipeline(pixels(), GraphCut())
    found = cross_validate(model, images, labels, cv=2, return_estimator=True)
    assert np.isfinite(found["test_score"]).all()
    assert found["test_score"].min() > 0.5
    scores = cross_val_score(model, images, labels, cv=2, scoring=make_scorer(mean_iou))
    assert scores == pytest.approx(found["test_score"])


def test_cross_val_predict_on_ragged_results(data):
    images, labels = data
    model = make_pipeline(pixels(), DenseCRF())
    found = cross_val_predict(model, images, labels, cv=2)
    assert found.shape == (4,)
    assert [m.shape for m in found] == [m.shape for m in labels]
    train, test = next(KFold(2).split(images))
    by_hand = clone(model).fit([images[i] for i in train], [labels[i] for i in train])
    assert same([found[i] for i in test], by_hand.predict([images[i] for i in test]))


def test_cross_validation_on_stacked_arrays():
    images, labels = halves(((24, 20),) * 4)
    model = make_pipeline(pixels(), DenseCRF())
    scores = cross_val_score(model, np.stack(images), np.stack(labels), cv=2)
    assert scores == pytest.approx(cross_val_score(model, images, labels, cv=2))


def test_paths_through_cross_validation(data, tmp_path):
    images, labels = data
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        iio.imwrite(path, image)
    model = make_pipeline(superpixels(), DenseCRF())
    assert cross_val_score(model, paths, labels, cv=2) == pytest.approx(
        cross_val_score(model, images, labels, cv=2)
    )


def test_pipeline_memory(data, tmp_path):
    images, labels = data
    plain = make_pipeline(pixels(), DenseCRF()).fit(images, labels)
    cached = make_pipeline(pixels(), DenseCRF(), memory=str(tmp_path))
    first = cached.fit(images, labels).predict(images)
    again = cached.fit(images, labels).predict(images)  # the segmenter comes from the cache
    assert same(first, plain.predict(images))
    assert same(again, first)


@pytest.mark.parametrize("unary", [pixels, superpixels, deep])
def test_pickled_pipeline(data, unary):
    images, labels = data
    model = make_pipeline(unary(), DenseCRF(), GraphCut()).fit(images, labels)
    assert same(pickle.loads(pickle.dumps(model)).predict(images), model.predict(images))


def test_pickled_scenes(data):
    images, labels = data
    scenes = superpixels().fit(images, labels).transform(images)
    again = pickle.loads(pickle.dumps(scenes))
    assert same([s.unary for s in scenes], [s.unary for s in again])


def test_frozen_segmenter_is_not_fitted_again(data):
    images, labels = data
    unary = pixels().fit(images, labels)
    model = make_pipeline(FrozenEstimator(unary), DenseCRF())
    model.fit(images, [np.zeros_like(lab) for lab in labels])
    expected = make_pipeline(pixels(), DenseCRF()).fit(images, labels)
    assert same(model.predict(images), expected.predict(images))
    inner = DenseCRF(FrozenEstimator(unary)).fit(images, labels)
    assert same(inner.predict(images), expected.predict(images))


def test_scenes_do_not_change_when_their_maker_is_fitted_again(data):
    images, labels = data
    model = pixels().fit(images, labels)
    scenes, expected = model.transform(images), model.predict(images)
    model.fit(images[:1], [2 - labels[0]])
    assert same([s.prediction for s in scenes], expected)


def test_set_output_on_a_pipeline(data):
    pytest.importorskip("pandas")
    images, labels = data
    with sklearn.config_context(transform_output="pandas"):
        model = make_pipeline(pixels(), DenseCRF()).fit(images, labels)
        assert isinstance(model.transform(images)[0], Scene)
    model.set_output(transform="pandas")
    assert isinstance(model.transform(images)[0], Scene)


def test_metadata_reach_the_segmenter(data):
    """Groups reach the cross-fitting step and the splitter, and weights reach the score."""
    images, labels = data
    groups, weights = np.array([0, 0, 1, 1]), np.array([1.0, 0.0, 2.0, 1.0])
    with sklearn.config_context(enable_metadata_routing=True):
        crossed = CrossFit(pixels(), cv=GroupKFold(2)).set_fit_request(groups=True)
        refiner = DenseCRF(n_iter=2).set_score_request(sample_weight=True)
        model = make_pipeline(crossed, refiner).fit(images, labels, groups=groups)
        assert np.isfinite(model.score(images, labels, sample_weight=weights))
        inner = DenseCRF(crossed, n_iter=2).fit(images, labels, groups=groups)
        assert same(inner.predict(images), model.predict(images))
        with pytest.raises(TypeError, match="unexpected argument"):
            inner.fit(images, labels, nonsense=groups)


def test_metadata_through_a_search(data):
    images, labels = data
    weights = np.array([1.0, 0.0, 2.0, 1.0])
    with sklearn.config_context(enable_metadata_routing=True):
        refiner = DenseCRF(pixels()).set_score_request(sample_weight=True)
        params = {"sample_weight": weights}
        scored = cross_val_score(refiner, images, labels, cv=2, params=params)
        search = GridSearchCV(refiner, {"n_iter": [10]}, cv=2).fit(images, labels, **params)
    by_hand = [
        clone(refiner)
        .fit([images[i] for i in train], [labels[i] for i in train])
        .score([images[i] for i in test], [labels[i] for i in test], weights[test])
        for train, test in KFold(2).split(images)
    ]
    assert scored == pytest.approx(by_hand)
    assert search.best_score_ == pytest.approx(np.mean(by_hand))


def test_fit_parameters_without_routing(data):
    images, labels = data
    crossed = CrossFit(pixels(), cv=2)
    assert DenseCRF(crossed).fit(images, labels, groups=[0, 0, 1, 1]).classes_.tolist() == [0, 1, 2]
    scenes = pixels().fit(images, labels).transform(images)
    with pytest.raises(TypeError, match="expected none without an inner segmenter"):
        DenseCRF().fit(scenes, labels, groups=[0, 0, 1, 1])


def test_search_over_the_parts_themselves(data):
    """The search tries every unary with every refiner, because steps are parameters too."""
    images, labels = data
    model = Pipeline([("unary", pixels()), ("refine", DenseCRF())])
    grid = {"unary": [pixels(), superpixels()], "refine": [DenseCRF(), GraphCut()]}
    search = GridSearchCV(model, grid, cv=2).fit(images, labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_bring_your_own_logits(data):
    images, labels = data
    rng = np.random.default_rng(0)
    scenes = [
        Scene.from_logits(image, np.eye(3)[lab] + rng.normal(0, 0.5, (*lab.shape, 3)))
        for image, lab in zip(images, labels, strict=True)
    ]
    plain = np.mean([np.mean(s.prediction == lab) for s, lab in zip(scenes, labels, strict=True)])
    refined = DenseCRF(bilateral_color=20.0).predict(scenes)  # nothing to learn, so no fit
    assert np.mean([np.mean(a == b) for a, b in zip(refined, labels, strict=True)]) > plain
    assert DenseCRF().score(scenes, labels) == DenseCRF().fit(scenes).score(scenes, labels)


def test_slices_of_scenes_stay_scenes(data):
    images, labels = data
    scenes = pixels().fit(images, labels).transform(images)
    scores = cross_val_score(DenseCRF(), scenes, labels, cv=2)
    assert np.isfinite(scores).all()


def test_regions_reach_the_cut(data):
    images, labels = data
    unary = SuperpixelClassifier(forest(), superpixels=SLIC(n_segments=40))
    scene = unary.fit(images, labels).transform(images[:1])[0]
    found = GraphCut(on="regions").predict([scene])[0]
    for region in np.unique(scene.region_costs.regions):
        assert len(np.unique(found[scene.region_costs.regions == region])) == 1
