"""Out-of-fold costs come from models that did not see the image."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GroupKFold, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hybridseg import CrossFit, GraphCut, GridCRF, PixelClassifier
from hybridseg.features import PixelFeatures
from hybridseg.scene.costs import MIN_PROBABILITY
from hybridseg.unary.cross_fit import block_folds
from tests.subjects import halves, pixels, superpixels


@pytest.fixture
def data():
    return halves(((24, 32), (30, 22), (20, 26), (26, 20)))


def memorizer():
    """A classifier that is certain about all pixels that it was trained on."""
    return PixelClassifier(KNeighborsClassifier(1), features=PixelFeatures(sigmas=(1.0,)))


@pytest.mark.parametrize("unary", [pixels, superpixels])
def test_costs_are_those_of_the_fold_models(data, unary):
    images, labels = data
    scenes = CrossFit(unary(), cv=2).fit_transform(images, labels)
    for train, test in KFold(2).split(images):
        model = unary().fit([images[i] for i in train], [labels[i] for i in train])
        for i in test:
            assert np.array_equal(scenes[i].unary, model.transform([images[i]])[0].unary)
    assert all(scene.meta["out_of_fold"] for scene in scenes)


def test_less_sure_out_of_fold(data):
    images, labels = data
    rng = np.random.default_rng(0)
    noisy = [
        np.where(rng.random(lab.shape) < 0.3, rng.integers(0, 3, lab.shape), lab) for lab in labels
    ]
    crossed = CrossFit(memorizer(), cv=4)
    out_of_fold = crossed.fit_transform(images, noisy)
    in_sample = crossed.transform(images)

    def accuracy(scenes):
        return np.mean([np.mean(s.prediction == n) for s, n in zip(scenes, noisy, strict=True)])

    assert accuracy(in_sample) == 1
    assert accuracy(out_of_fold) < 0.8


def test_transform_uses_the_model_of_all(data):
    images, labels = data
    crossed = CrossFit(pixels(), cv=2).fit(images, labels)
    expected = pixels().fit(images, labels)
    assert np.array_equal(crossed.predict(images)[0], expected.predict(images)[0])
    assert np.array_equal(crossed.predict_proba(images)[2], expected.predict_proba(images)[2])


def test_class_that_a_fold_lacks(data):
    images, labels = data
    labels = [lab if i == 3 else np.where(lab == 2, -1, lab) for i, lab in enumerate(labels)]
    scenes = CrossFit(pixels(), cv=2).fit_transform(images, labels)
    # the model of the fold without image 3 never saw class 2
    assert scenes[3].unary.shape[-1] == 3
    assert np.allclose(scenes[3].unary[..., 2], -np.log(MIN_PROBABILITY))
    assert scenes[0].unary[..., 2].min() < 1


def test_class_that_a_fold_lacks_by_region(data):
    images, labels = data
    labels = [lab if i == 3 else np.where(lab == 0, -1, lab) for i, lab in enumerate(labels)]
    scene = CrossFit(superpixels(), cv=2).fit_transform(images, labels)[3]
    assert scene.region_costs is not None
    assert np.allclose(scene.region_costs.costs[:, 0], -np.log(MIN_PROBABILITY))


def test_groups_stay_together(data):
    images, labels = data
    groups = np.array([0, 1, 0, 1])
    scenes = CrossFit(pixels(), cv=2).fit_transform(images, labels, groups=groups)
    for held_out in (0, 1):
        train = np.flatnonzero(groups != held_out)
        model = pixels().fit([images[i] for i in train], [labels[i] for i in train])
        for i in np.flatnonzero(groups == held_out):
            assert np.array_equal(scenes[i].unary, model.transform([images[i]])[0].unary)


def test_holdout_marks_images_in_sample(data):
    images, labels = data
    labels[2] = 2 - labels[2]  # image 2 disagrees, which shows the training images
    crossed = CrossFit(memorizer(), cv="holdout", random_state=0)
    scenes = crossed.fit_transform(images, labels)
    marked = [scene.meta["out_of_fold"] for scene in scenes]
    assert sum(marked) == 1
    in_sample = crossed.transform(images)
    for i, (scene, seen) in enumerate(zip(scenes, in_sample, strict=True)):
        assert np.array_equal(scene.unary, seen.unary) == (not marked[i])


def test_one_image_is_cut_into_blocks():
    images, labels = halves(((36, 40),))
    rng = np.random.default_rng(0)
    noisy = [np.where(rng.random(labels[0].shape) < 0.3, 2 - labels[0], labels[0])]
    crossed = CrossFit(memorizer(), cv=3)
    scene = crossed.fit_transform(images, noisy)[0]
    assert scene.meta["out_of_fold"]
    fold_of = block_folds((36, 40), 3)
    for fold in range(3):
        model = memorizer().fit(images, [np.where(fold_of == fold, -1, noisy[0])])
        held_out = fold_of == fold
        assert np.array_equal(scene.unary[held_out], model.transform(images)[0].unary[held_out])
    assert np.mean(scene.prediction == noisy[0]) < 0.85
    assert np.array_equal(crossed.predict(images)[0], noisy[0])


@pytest.mark.parametrize("shape", [(36, 40), (7, 50), (12, 14, 16), (1, 1)])
@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_block_folds(shape, n_folds):
    folds = block_folds(shape, n_folds)
    assert folds.shape == shape
    assert folds.min() >= 0
    assert folds.max() < n_folds
    if min(shape) >= 2 * n_folds:
        counts = np.bincount(folds.ravel(), minlength=n_folds) / folds.size
        assert counts == pytest.approx(np.full(n_folds, 1 / n_folds), abs=0.12)
        # every line of blocks has all folds, so no fold is one side of the image
        assert all(len(np.unique(folds[i])) == n_folds for i in range(0, shape[0], 3))


def test_groups_in_every_kind_of_cross_fit():
    images, labels = halves(((24, 32),) * 8)
    groups = np.repeat(np.arange(4), 2)
    held = CrossFit(pixels(), cv="holdout", random_state=0).fit_transform(images, labels, groups)
    marked = np.array([scene.meta["out_of_fold"] for scene in held])
    assert len(np.unique(groups[marked])) == 1
    assert marked.sum() == 2
    a = CrossFit(pixels(), cv=np.int64(4)).fit_transform(images, labels, groups)
    b = CrossFit(pixels(), cv=GroupKFold(4)).fit_transform(images, labels, groups)
    assert all(np.array_equal(x.unary, y.unary) for x, y in zip(a, b, strict=True))
    one = CrossFit(pixels(), cv=np.int64(2)).fit_transform(images[:1], labels[:1])
    assert one[0].meta["out_of_fold"]


def test_failed_cross_fit_keeps_what_was_fitted():
    images, labels = halves()
    crossed = CrossFit(pixels(), cv=3).fit(images[:2], [np.minimum(lab, 1) for lab in labels[:2]])
    before = crossed.segmenter_
    with pytest.raises(ValueError, match="cv=3, but there are 2 images; expected at least 3"):
        crossed.fit_transform(images[:2], labels[:2])
    assert crossed.segmenter_ is before
    assert crossed.classes_.tolist() == [0, 1]


def gray(colors, *, spacing):
    return colors.mean(axis=-1, keepdims=True)


def test_cross_fit_of_what_cannot_be_fitted_or_has_no_probabilities():
    images, labels = halves()
    frozen = CrossFit(FrozenEstimator(pixels().fit(images, labels)), cv=3)
    assert not any(s.meta["out_of_fold"] for s in frozen.fit_transform(images, labels))
    for holder in (GridCRF(frozen.segmenter), make_pipeline(frozen.segmenter, GridCRF())):
        found = CrossFit(holder, cv=3).fit_transform(images, labels)
        assert not any(scene.meta["out_of_fold"] for scene in found)
    scaled = FrozenEstimator(StandardScaler().fit([[0.0], [1.0]]))  # no segmenter
    steps = make_pipeline(scaled, GaussianNB())
    found = CrossFit(PixelClassifier(steps, features=gray), cv=3).fit_transform(images, labels)
    assert all(scene.meta["out_of_fold"] for scene in found)
    assert not hasattr(CrossFit(GraphCut(pixels())), "predict_proba")
    assert hasattr(CrossFit(pixels()), "predict_proba")
