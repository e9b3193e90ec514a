"""The laws that base classes guarantee for estimators that only define hooks."""

from numbers import Integral, Real

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from hybridseg import ImageList, Scene
from hybridseg.base import (
    HardRefiner,
    Interval,
    Refiner,
    Segmenter,
    SegmenterMixin,
    SoftRefiner,
    restored_on_error,
)
from hybridseg.metrics import mean_iou
from hybridseg.validation import LARGEST
from tests.segmenters_made import Dearest, NearestGray, Unchanged
from tests.subjects import halves

X, Y = halves(values=(3, 5, 9))


@pytest.fixture(scope="module")
def fitted():
    return NearestGray().fit(X, Y)


# -- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [int, float, np.float16, np.float32, np.float64, np.int8])
def test_an_interval_takes_numbers_of_every_type(kind):
    interval = Interval(Real, 0, 5, closed="left")
    assert [interval.is_satisfied_by(kind(x)) for x in (-1, 0, 3, 5)] == [False, True, True, False]


@pytest.mark.parametrize("value", [True, np.True_, "1", None, [1], 1j])
def test_an_interval_refuses_what_is_no_number(value):
    for kind in (Real, Integral):
        assert not Interval(kind, None, None, closed="neither").is_satisfied_by(value)


def test_an_interval_holds_what_fits_float32_or_64_bits():
    real = Interval(Real, None, None, closed="neither")
    whole = Interval(Integral, None, None, closed="neither")
    for sign in (-1, 1):
        assert real.is_satisfied_by(sign * LARGEST)
        assert not real.is_satisfied_by(sign * 1.01 * LARGEST)
        assert whole.is_satisfied_by(sign * (2**63 - 1))
        assert not whole.is_satisfied_by(sign * 2**63)
    for value in (np.nan, np.inf, 10**400):
        assert not real.is_satisfied_by(value)
    assert f"{LARGEST:g}" in str(real)
    assert f"{LARGEST:g}" not in str(whole)


def test_parameters_are_checked_before_anything_is_learned():
    model = NearestGray(scale=-1.0)
    with pytest.raises(ValueError, match="'scale' parameter of NearestGray must be .*Got -1"):
        model.fit(X, Y)
    assert list(vars(model)) == ["scale", "intensity_range", "ignore_label"]


# -- an error changes nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_attributes_are_restored_on_an_error_alone(error):
    model = NearestGray()
    model.kept_ = kept = [1]

    def change_and_fail():
        with restored_on_error(model):
            model.kept_, model.scale, model.new_ = [2], 3.0, 4
            raise error("late")

    with pytest.raises(error, match="late"):
        change_and_fail()
    assert vars(model) == vars(NearestGray()) | {"kept_": kept}
    assert model.kept_ is kept
    with restored_on_error(model):
        model.new_ = 4
    assert model.new_ == 4


def test_a_hook_that_fails_leaves_the_fitted_model(fitted, monkeypatch):
    model = NearestGray().fit(X, Y)
    monkeypatch.setattr(NearestGray, "_learn", lambda self, training: 1 / 0)
    for refit in (model.fit, Unchanged(model).fit):
        with pytest.raises(ZeroDivisionError, match="division"):
            refit([image[..., :2] for image in X], [labels // 2 for labels in Y])
    for a, b in zip(model.predict(X), fitted.predict(X), strict=True):
        np.testing.assert_array_equal(a, b)


# -- segmenters -----------------------------------------------------------------------------------


def test_a_segmenter_learns_from_two_hooks(fitted):
    assert fitted.classes_.tolist() == [3, 5, 9]
    assert (fitted.spatial_ndim_, fitted.n_channels_in_) == (2, 3)
    proba, found = fitted.predict_proba(X), fitted.predict(X)
    for p, labels, scene in zip(proba, found, fitted.transform(X), strict=True):
        np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-6)
        np.testing.assert_array_equal(labels, fitted.classes_[p.argmax(axis=-1)])
        np.testing.assert_array_equal(labels, scene.prediction)
        labels[0, 0] = 7  # results may be written to
    assert fitted.score(X, Y) == mean_iou(Y, fitted.predict(X))


def test_costs_are_computed_on_reading_by_the_model_of_transform(monkeypatch):
    model, calls = NearestGray().fit(X, Y), []
    costs = NearestGray._costs
    monkeypatch.setattr(
        NearestGray, "_costs", lambda self, scene: calls.append(1) or costs(self, scene)
    )
    scenes = model.transform(X)
    assert not calls
    before = clone(model).fit(X, Y).predict_proba(X)
    model.set_params(scale=1.0).fit(X, [9 - labels for labels in Y])
    assert scenes[0].classes.tolist() == [3, 5, 9]
    for scene, p in zip(scenes, before, strict=True):
        np.testing.assert_array_equal(scene.proba, p)


def test_a_scene_gives_up_the_results_of_others(fitted):
    other = Scene(X[0], labels=Y[0], unary=np.zeros((*Y[0].shape, 2)), classes=(0, 1))
    found = fitted.transform([other])[0]
    np.testing.assert_array_equal(found.prediction, fitted.predict(X)[0])
    assert not found.has_labels


def test_pixels_that_are_not_valid_do_not_count(fitted):
    valid = np.zeros(Y[0].shape, bool)
    valid[5:20, 3:30] = True
    scene = Scene(X[0], valid=valid)
    expected = mean_iou([np.where(valid, Y[0], -1)], fitted.predict(X[:1]))
    assert fitted.score([scene], Y[:1]) == expected
    assert (fitted.predict([scene])[0][~valid] == -1).all()


def test_weights_repeat_images(fitted):
    wrong = [Y[0], np.full_like(Y[1], 3), Y[2]]
    once = fitted.score([*X, X[1]], [*wrong, wrong[1]])
    assert fitted.score(X, wrong, sample_weight=[1, 2, 1]) == pytest.approx(once)
    without = fitted.score([X[0], X[2]], [wrong[0], wrong[2]])
    assert fitted.score(X, wrong, sample_weight=[2, 0, 2]) == pytest.approx(without)


def test_other_channels_and_unfitted_models_are_refused(fitted):
    with pytest.raises(NotFittedError, match="NearestGray instance is not fitted yet"):
        NearestGray().transform(X)
    with pytest.raises(ValueError, match=r"X\[1\] has 1 channels, but NearestGray was fitted on"):
        fitted.transform([X[0], X[1][..., :1]])


# -- refiners -------------------------------------------------------------------------------------


@pytest.mark.parametrize("refiner", [Unchanged, Dearest])
def test_an_inner_segmenter_is_the_pipeline_of_the_two(refiner):
    inside, behind = refiner(NearestGray()), make_pipeline(NearestGray(), refiner())
    given = inside.estimator
    for a, b in zip(inside.fit(X, Y).predict(X), behind.fit(X, Y).predict(X), strict=True):
        np.testing.assert_array_equal(a, b)
    assert inside.estimator is given
    assert not hasattr(given, "classes_")
    assert inside.classes_.tolist() == [3, 5, 9]


def test_soft_refiners_change_costs_and_hard_ones_labels(fitted):
    scenes = fitted.transform(X)
    for before, soft, hard in zip(
        scenes, Unchanged().transform(scenes), Dearest().transform(scenes), strict=True
    ):
        np.testing.assert_allclose(soft.proba, before.proba, atol=1e-6)
        np.testing.assert_array_equal(hard.unary, before.unary)
        np.testing.assert_array_equal(hard.prediction, before.classes[before.unary.argmax(-1)])
    assert hasattr(Unchanged(), "predict_proba")
    assert not hasattr(Dearest(), "predict_proba")
    again = Unchanged().transform(Dearest().transform(scenes))  # the last one tells the labels
    np.testing.assert_array_equal(again[0].prediction, scenes[0].prediction)


def test_a_refiner_without_a_segmenter_counts_as_fitted_and_needs_costs(fitted):
    with pytest.raises(ValueError, match=r"X\[0\] is a plain image, .*; Unchanged refines costs"):
        Unchanged().predict(X)
    with pytest.raises(NotFittedError, match="Unchanged instance is not fitted"):
        Unchanged(NearestGray()).predict(X)
    with pytest.raises(TypeError, match=r"fit got the metadata \['groups'\], but estimator=None"):
        Unchanged().fit(fitted.transform(X), groups=[1, 2, 3])
    assert Unchanged().fit(fitted.transform(X)).classes_.tolist() == [3, 5, 9]


def test_a_refiner_takes_the_range_of_each_scene_or_its_own(fitted):
    scenes = fitted.transform(X)
    for own in (None, (0, 100)):
        (found, *_) = Unchanged(intensity_range=own).transform(scenes)
        assert found.intensity_range == (own or scenes[0].intensity_range)


# -- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [NearestGray(), Unchanged(), Dearest(NearestGray())])
def test_estimators_are_segmenters_for_scikit_learn(model):
    tags, learns = get_tags(model), getattr(model, "estimator", model) is not None
    assert tags.estimator_type == "segmenter"
    assert not tags.input_tags.two_d_array
    assert tags.target_tags.required == learns
    given = X if learns else NearestGray().fit(X, Y).transform(X)
    with sklearn.config_context(transform_output="pandas"):
        scenes = clone(model).fit(given, Y).set_output(transform="pandas").transform(given)
    assert isinstance(scenes, ImageList)
    assert isinstance(scenes[0], Scene)


@pytest.mark.parametrize(
    ("base", "hook"),
    [
        (Segmenter, "_learn(training)"),
        (Segmenter, "_costs(scene)"),
        (Refiner, "_refined(scene)"),
        (SoftRefiner, "_marginals(scene)"),
        (HardRefiner, "_label_indices(scene)"),
    ],
)
def test_a_hook_that_is_missing_is_named(base, hook):
    name, _, _ = hook.partition("(")
    lacking = type("Lacking", (base,), {})
    assert issubclass(lacking, SegmenterMixin)
    with pytest.raises(TypeError, match=rf"Lacking lacks the hook {name}\("):
        getattr(object.__new__(lacking), name)(None)
