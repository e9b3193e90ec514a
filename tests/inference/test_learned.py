"""Refiners that learn: what they read, what they refuse, and what held-out images show."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from hybridseg import CrossFit, DenseCRF, PixelClassifier, Scene
from hybridseg.features import PixelFeatures
from hybridseg.inference.learned import _window
from hybridseg.learning import Learner
from hybridseg.metrics import mean_iou
from tests.inference.learning_problems import scene, scenes, volumes

QUICK = {"max_iter": 15, "random_state": 0}


def learned(what="all", **options):
    settings = QUICK | options.pop("settings", {})
    return DenseCRF(learn=Learner(what, **settings), **options)


@pytest.fixture(scope="module")
def fitted():
    X, y = scenes(8)
    return learned().fit(X, y)


def test_learning_improves_images_that_it_did_not_see(fitted):
    X, y = scenes(6, first=100)
    alone = mean_iou(y, [each.prediction for each in X])
    assert fitted.learning_.strength > 0
    assert fitted.score(X, y) > alone + 0.2


def test_the_parameters_alone_refine_as_the_fitted_model(fitted):
    X, _ = scenes(3, first=100)
    plain = DenseCRF(**fitted.params_)
    for ours, theirs in zip(fitted.transform(X), plain.transform(X), strict=True):
        np.testing.assert_array_equal(ours.unary, theirs.unary)
    assert fitted.parameters_for(X[:1])[0]["bilateral_weight"] == fitted.params_["bilateral_weight"]
    indices = fitted.predict(X[:1])[0]
    assert fitted.energy(X[0]).energy(indices) == plain.energy(X[0]).energy(indices)


def test_no_parameter_of_the_constructor_changes(fitted):
    assert fitted.bilateral_weight == "auto"
    again = clone(fitted)
    with pytest.raises(NotFittedError, match="not fitted"):
        again.predict(scenes(1)[0])


def test_the_same_seed_learns_the_same():
    X, y = scenes(4)
    first, second = (learned("weights").fit(X, y).params_ for _ in range(2))
    assert first == second


def test_useless_refinement_is_refused():
    """Colors that say nothing, and thin lines: smoothing can only do harm."""
    X, y = [], []
    for seed in range(6):
        random = np.random.default_rng(seed)
        truth = (np.arange(40) % 2)[:, np.newaxis].repeat(40, 1)
        image = random.integers(0, 255, (40, 40)).astype(np.uint8)
        costs = random.gumbel(size=(40, 40, 2)) * 0.7 - 1.5 * np.eye(2)[truth]
        X.append(Scene(image, unary=costs.astype(np.float32), classes=[0, 1]))
        y.append(truth)
    model = learned().fit(X, y)
    assert model.learning_.strength == 0
    assert "refused" in str(model.learning_)
    for each, found in zip(X, model.predict(X), strict=True):
        np.testing.assert_array_equal(found, each.prediction)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("objective", ["iou", "dice", "log_likelihood"])
def test_every_objective_and_optimizer_learns(objective, optimizer):
    X, y = scenes(4)
    settings = {"objective": objective, "optimizer": optimizer, "class_weight": "balanced"}
    model = learned("weights", settings=settings | {"max_iter": 8}).fit(X, y)
    assert model.learning_.strength > 0
    losses = model.learning_.losses
    assert len(losses) == 3
    assert all(len(each) >= 8 for each in losses)


def test_a_single_image_is_judged_block_by_block():
    X, y = scenes(1, shape=(80, 96))
    model = learned("weights").fit(X, y)
    assert model.learning_.gate.n_images == 3
    assert model.learning_.strength > 0


def test_two_labels_and_volumes():
    X, y = volumes(4)
    model = learned().fit(X[:3], y[:3])
    alone = mean_iou(y[3:], [X[3].prediction])
    assert model.learning_.strength > 0
    assert model.score(X[3:], y[3:]) > alone


def test_pixels_that_are_not_valid_or_not_labeled_do_not_count():
    X, y = scenes(4, valid=True)
    noisy = [np.where(each.valid, truth, 2 - truth) for each, truth in zip(X, y, strict=True)]
    hidden = [each.replace(unary=np.where(each.valid[..., None], each.unary, 7.0)) for each in X]
    first = learned("weights").fit(X, y).params_
    assert first == learned("weights").fit(hidden, noisy).params_


def test_ignored_labels_do_not_count(rng):
    X, y = scenes(4)
    marked = [np.where(rng.random(truth.shape) < 0.3, 255, truth) for truth in y]
    negative = [np.where(truth == 255, -7, truth) for truth in marked]
    named = [each.replace(ignore_label=255) for each in X]
    first = learned("weights").fit(X, negative).params_
    assert first == learned("weights").fit(named, marked).params_


def test_label_values_may_be_any_and_in_any_order():
    X, y = scenes(4)
    values = np.array([40, 7, 300])
    renamed = [each.replace(classes=values) for each in X]
    model = learned().fit(renamed, [values[truth] for truth in y])
    expected = learned().fit(X, y)
    np.testing.assert_array_equal(model.classes_, values)
    np.testing.assert_array_equal(model.params_["compatibility"], expected.params_["compatibility"])
    np.testing.assert_array_equal(model.predict(renamed)[0], values[expected.predict(X)[0]])


def test_a_large_image_contributes_the_window_with_the_most_labels(rng):
    truth = np.full((400, 300), -1)
    truth[250:390, 20:140] = 1
    box = _window(truth, 100 * 75, 3)
    sides = [side.stop - side.start for side in box]
    assert sides == [100, 75]
    assert (truth[box] >= 0).mean() > 0.6
    assert _window(truth, truth.size, 3) == (slice(0, 400), slice(0, 300))
    X, y = scenes(3, shape=(120, 160))
    model = learned("weights", settings={"max_pixels": 64 * 64}).fit(X, y)
    assert model.learning_.strength > 0


def test_groups_stay_together():
    X, y = scenes(4)
    model = learned("weights").fit(X, y, groups=[0, 0, 1, 1])
    assert len(model.learning_.losses) == 2
    with pytest.raises(ValueError, match="groups has 1 group for 4 images"):
        learned("weights").fit(X, y, groups=[5] * 4)


def pixels():
    forest = RandomForestClassifier(n_estimators=20, random_state=0)
    return PixelClassifier(forest, features=PixelFeatures(sigmas=(1.0,)), random_state=0)


def photographs(n, first=0):
    """Images with as much noise as contrast, and label maps."""
    images, labels = [], []
    for seed in range(first, first + n):
        each, truth = scene(seed)
        noise = np.random.default_rng(seed).normal(0, 70, truth.shape)
        images.append((each.image + noise).clip(0, 255).astype(np.uint8))
        labels.append(truth)
    return images, labels


def test_costs_of_training_images_mislead_and_warn():
    """In sample a forest is always right: a CRF learns that there is nothing to refine."""
    X, y = photographs(6)
    test, truth = photographs(4, first=50)
    segmenter = pixels().fit(X, y)
    with pytest.warns(UserWarning, match="the costs are in-sample"):
        in_sample = learned("weights").fit(pixels().fit_transform(X, y), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crossed = learned("weights", estimator=pixels(), cv=3).fit(X, y)
    costs = segmenter.transform(test)
    alone = mean_iou(truth, segmenter.predict(test))
    assert crossed.score(test, truth) > alone + 0.02
    assert crossed.score(test, truth) > in_sample.score(costs, truth) + 0.02


def test_pipelines_know_what_is_in_sample():
    X, y = photographs(3)
    with pytest.warns(UserWarning, match="the costs are in-sample"):
        make_pipeline(pixels(), learned("weights")).fit(X, y)
    with pytest.warns(UserWarning, match="cv=None"):
        learned("weights", estimator=pixels(), cv=None).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_pipeline(CrossFit(pixels(), cv=3), learned("weights")).fit(X, y)
        frozen = FrozenEstimator(pixels().fit(X, y))
        assert learned("weights", estimator=frozen).fit(X, y).estimator_ is frozen


def test_a_search_reaches_the_settings():
    X, y = scenes(4)
    search = GridSearchCV(learned("weights"), {"learn__objective": ["iou", "dice"]}, cv=2)
    assert search.fit(X, y).best_params_.keys() == {"learn__objective"}


def test_a_second_fit_forgets_the_first(fitted):
    X, y = scenes(2)
    model = clone(fitted).fit(*scenes(3))
    model.set_params(learn=None).fit(X, y)
    assert not hasattr(model, "params_")
    assert not hasattr(model, "learning_")


def test_wrong_labels_are_refused():
    X, y = scenes(3)
    with pytest.raises(ValueError, match=r"y\[1\] holds the label 9; expected one of"):
        learned().fit(X, [y[0], np.where(y[1] == 2, 9, y[1]), y[2]])
    with pytest.raises(ValueError, match="y holds no known label"):
        learned().fit(X, [np.full_like(each, -1) for each in y])
    with pytest.raises(TypeError, match="y is None"):
        learned().fit(X)
    other = X[1].replace(classes=[5, 6, 7])
    with pytest.raises(ValueError, match=r"X\[1\] has the classes \[5, 6, 7\]"):
        learned().fit([X[0], other, X[2]], y)
    with pytest.raises(ValueError, match=r"label_bias has shape \(2,\); expected \(3,\)"):
        learned(label_bias=[1.0, 2.0]).fit(X, y)
    with pytest.raises(TypeError, match="which learning cannot pass"):
        learned(estimator=pixels()).fit(X, y, colour=1)


def test_a_failed_fit_leaves_the_model_as_it_was(fitted):
    X, y = scenes(3)
    before = dict(vars(fitted))
    with pytest.raises(ValueError, match="holds the label 9"):
        fitted.fit(X, [np.full_like(each, 9) for each in y])
    assert dict(vars(fitted)) == before
