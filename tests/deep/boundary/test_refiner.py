"""BoundaryRefiner: it undoes known errors, does no harm, and keeps the contract of refiners."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from hybridseg import BoundaryRefiner, CrossFit, Scene, load, save
from hybridseg.metrics import boundary_iou, mean_iou
from hybridseg.unary import Augmentation
from tests.deep.boundary.shifted import several, shifted
from tests.subjects import halves, pixels

pytestmark = pytest.mark.usefixtures("one_torch_thread")

QUICK = {
    "band": 5,
    "hidden": 8,
    "depth": 4,
    "n_patches": 48,
    "patch_size": 24,
    "max_epochs": 8,
    "batch_size": 8,
    "lr": 0.01,
    "augment": None,
    "random_state": 0,
    "device": "cpu",
}


def quick(estimator=None, **changes):
    return BoundaryRefiner(estimator, **(QUICK | changes))


def unrefined(X, y):
    return mean_iou(y, [scene.prediction for scene in X])


TINY = {"n_patches": 8, "max_epochs": 1}


@pytest.fixture(scope="module")
def fitted():
    return quick(gate=2).fit(*several(6, n_labels=3))


def test_it_undoes_a_shift_on_images_that_it_did_not_see(fitted):
    X, y = several(4, first=50, n_labels=3)
    before = [scene.prediction for scene in X]
    after = fitted.predict(X)
    alone = boundary_iou(y, before, dilation_ratio=0.03)
    assert fitted.strength_ > 0
    assert boundary_iou(y, after, dilation_ratio=0.03) > alone + 0.2
    assert fitted.score(X, y) > unrefined(X, y) + 0.05


def test_volumes_with_spacing():
    options = {"shape": (16, 20, 20), "spacing": (2.0, 1.0, 1.0)}
    model = quick(gate=None, band=4, patch_size=12, n_patches=32, max_epochs=6)
    X, y = several(3, **options)
    model.fit(X, y)
    X, y = several(2, first=50, **options)
    assert model.score(X, y) > unrefined(X, y) + 0.03


def test_what_gains_nothing_is_refused():
    """The incoming boundaries are right, so no correction can be better."""
    X, _ = several(4)
    y = [scene.prediction for scene in X]
    model = quick(gate=2, max_epochs=2).fit(X, y)
    assert model.strength_ == 0
    assert "refused" in str(model.learning_)
    for scene, found, proba in zip(X, model.predict(X), model.predict_proba(X), strict=True):
        np.testing.assert_array_equal(found, scene.prediction)
        np.testing.assert_allclose(proba, scene.proba, atol=1e-6)


def test_outside_of_the_band_nothing_changes(fitted):
    scene, _ = shifted(60, n_labels=3, shape=(60, 80))
    far = np.zeros((60, 80), bool)
    labels = scene.prediction
    for row, column in np.ndindex(labels.shape):
        window = labels[max(0, row - 6) : row + 7, max(0, column - 6) : column + 7]
        far[row, column] = (window == labels[row, column]).all()
    (proba,) = fitted.predict_proba([scene])
    assert far.any()
    np.testing.assert_allclose(proba[far], scene.proba[far], atol=1e-6)
    assert np.abs(proba - scene.proba).max() > 0.5


def test_strength_0_is_the_identity(fitted):
    weak = clone(fitted)
    weak.__dict__.update({name: value for name, value in vars(fitted).items() if name[-1] == "_"})
    weak.strength_ = 0.0
    (scene,), _ = several(1, first=50, n_labels=3)
    np.testing.assert_allclose(weak.predict_proba([scene])[0], scene.proba, atol=1e-6)
    np.testing.assert_array_equal(weak.predict([scene])[0], scene.prediction)


def test_a_crop_gets_the_same_corrections_inside(fitted):
    (scene,), _ = several(1, first=50, n_labels=3, shape=(60, 70))
    (whole,) = fitted.predict_proba([scene])
    crop = scene.replace(image=scene.image[:40], unary=scene.unary[:40])
    (part,) = fitted.predict_proba([crop])
    margin = fitted.network_.reach + 6
    np.testing.assert_allclose(part[: 40 - margin], whole[: 40 - margin], atol=1e-5)


def test_threads_change_no_more_than_rounding(fitted):
    X, _ = several(2, first=50, n_labels=3, shape=(90, 120))
    before = torch.get_num_threads()
    found = []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            found.append(fitted.predict_proba(X))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_unit_of_spacing_has_no_effect():
    found = []
    for unit in (1.0, 1000.0):
        X, y = several(2, shape=(30, 36), spacing=(2 * unit, unit))
        model = quick(gate=None, **TINY | {"band": 4 * unit}).fit(X, y)
        found.append(model.predict_proba(X))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_invalid_pixels_have_no_influence(fitted):
    X, y = several(3, n_labels=3)
    rng = np.random.default_rng(0)
    hidden, masked, wrong = [], [], []
    for scene, truth in zip(X, y, strict=True):
        valid = np.ones(truth.shape, bool)
        valid[:, :12] = rng.random((len(truth), 12)) > 0.5
        image = scene.image.astype(np.float32)
        scene = scene.replace(image=image, valid=valid, intensity_range=(0, 255))
        masked.append(scene)
        nan = np.where(valid[..., None], image, np.nan)
        hidden.append(scene.replace(image=nan, unary=np.where(valid[..., None], scene.unary, 9.0)))
        wrong.append(np.where(valid, truth, 2 - truth))
    one, other = (quick(gate=None, **TINY).fit(*each) for each in ((masked, y), (hidden, wrong)))
    for first, second in zip(one.predict(masked), other.predict(hidden), strict=True):
        np.testing.assert_array_equal(first, second)
        assert (first == -1).any()
    for scene, found in zip(masked, fitted.predict_proba(masked), strict=True):
        np.testing.assert_allclose(found[~scene.valid], 1 / 3, atol=1e-6)


def test_labels_may_have_any_values_and_void_does_not_count():
    X, y = several(3, n_labels=3)
    values = np.array([40, 7, 300])
    renamed = [scene.replace(classes=values, ignore_label=255) for scene in X]
    void = np.random.default_rng(0).random(y[0].shape) < 0.2
    one = quick(gate=None, **TINY).fit(X, [np.where(void, -1, truth) for truth in y])
    other = quick(gate=None, **TINY).fit(
        renamed, [np.where(void, 255, values[truth]) for truth in y]
    )
    np.testing.assert_array_equal(other.classes_, values)
    np.testing.assert_array_equal(other.predict(renamed)[0], values[one.predict(X)[0]])


def test_a_single_image_is_judged_block_by_block():
    X, y = several(1, shape=(80, 96))
    model = quick(gate=3).fit(X, y)
    assert model.learning_.gate.n_images == 3
    assert model.strength_ > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (12, 12)])
def test_without_a_boundary_nothing_is_learned(shape):
    scene = Scene(np.zeros(shape, np.uint8), unary=np.zeros((*shape, 1), np.float32), classes=[4])
    truth = np.full(shape, 4)
    model = quick(**TINY)
    with pytest.warns(UserWarning, match="no pixel near a boundary .* has a known label"):
        model.fit([scene, scene], [truth, truth])
    assert model.strength_ == 0
    np.testing.assert_array_equal(model.predict([scene])[0], truth)


def test_read_only_inputs_are_not_written_to():
    X, y = several(2)
    arrays = [array for scene in X for array in (scene.image, scene.unary)] + y
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    quick(gate=None, **TINY).fit(X, y).predict(X)
    for array, before in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, before)


def test_a_loaded_refiner_predicts_the_same_bits(tmp_path):
    X, y = several(3)
    model = quick(gate=None, **TINY).fit(X, y)
    found = load(save(model, tmp_path / "model.hybridseg"))
    assert found.get_params() == model.get_params()
    assert str(found.learning_) == str(model.learning_)
    for one, other in zip(model.predict_proba(X), found.predict_proba(X), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_inner_segmenter_is_cross_fitted():
    images, labels = halves(((24, 32), (30, 22), (20, 26), (24, 24)))
    model = quick(pixels(), cv=2, gate=2, **TINY).fit(images, labels)
    crossed = CrossFit(pixels(), cv=2).fit_transform(images, labels)
    expected = quick(gate=2, **TINY).fit(crossed, labels)
    assert model.learning_.losses[0].tolist() == expected.learning_.losses[0].tolist()
    assert model.predict(images)[0].shape == (24, 32)


def test_in_sample_costs_are_told():
    images, labels = halves()
    scenes = pixels().fit_transform(images, labels)
    with pytest.warns(UserWarning, match=r"the costs are in-sample.*BoundaryRefiner\(segmenter"):
        quick(**TINY, gate=None).fit(scenes, labels)
    with pytest.warns(UserWarning, match="cv=None, so learning uses the costs"):
        quick(pixels(), cv=None, **TINY, gate=None).fit(images, labels)
    frozen = FrozenEstimator(pixels().fit(images, labels))
    quick(frozen, **TINY, gate=None).fit(images, labels)


def test_pipelines_and_searches():
    images, labels = halves(((24, 32), (30, 22), (20, 26), (24, 24)))
    pipeline = make_pipeline(CrossFit(pixels(), cv=2), quick(gate=None, **TINY))
    search = GridSearchCV(pipeline, {"boundaryrefiner__band": [2, 4]}, cv=KFold(2))
    search.fit(images, labels)
    assert search.best_score_ > 0.5
    assert search.best_estimator_.predict_proba(images)[0].shape == (24, 32, 3)


def test_groups_stay_together():
    X, y = several(4)
    report = quick(gate=2, **TINY).fit(X, y, groups=[0, 0, 1, 1]).learning_
    assert report.gate.n_images == 4
    with pytest.raises(ValueError, match="groups has 1 group for 4 images"):
        quick(gate=2, **TINY).fit(X, y, groups=[7] * 4)


def test_a_failed_fit_leaves_a_fitted_refiner_as_it_was():
    X, y = several(3)
    model = quick(gate=None, **TINY).fit(X, y)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=r"y\[2\] holds the label 9"):
        model.fit(X, [*y[:2], np.full_like(y[2], 9)])
    with pytest.raises(ValueError, match="device='nowhere' cannot be used here"):
        model.set_params(device="nowhere").fit(X, y)
    assert vars(model) == {**before, "device": "nowhere"}


def test_errors_name_what_does_not_fit(fitted):
    X, y = several(2, n_labels=3)
    with pytest.raises(NotFittedError, match="not fitted"):
        quick().predict(X)
    with pytest.raises(TypeError, match="y is None"):
        quick().fit(X)
    with pytest.raises(ValueError, match=r"band.*must be"):
        quick(band=-1).fit(X, y)
    with pytest.raises(ValueError, match=r"augment has scale=\(0.5, 2.0\).*expected \(1, 1\)"):
        quick(augment=Augmentation(scale=(0.5, 2.0))).fit(X, y)
    gray = X[0].replace(image=X[0].image[..., 0])
    with pytest.raises(ValueError, match="2 axes and 1 channels; expected 2 axes and 3 channels"):
        fitted.predict([gray])
    with pytest.raises(ValueError, match=r"has the classes \[0, 1, 5\]; expected \[0, 1, 2\]"):
        fitted.predict([X[0].replace(classes=[0, 1, 5])])
