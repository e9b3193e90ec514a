"""A classifier of the probabilities of several segmenters and of pixel features."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from hybridseg import CrossFit, GraphCut, PixelClassifier, Scene, StackedSegmenter, load, save
from hybridseg.features import PixelFeatures
from hybridseg.unary.opinion_pool import MAX_COST
from tests.subjects import forest, halves, members, pixels, superpixels
from tests.unary.planes import Planes, planes_problem

SHAPES = ((24, 32), (30, 22), (20, 26), (26, 20))


class Spy(GaussianNB):
    """A classifier that keeps what it learned from."""

    def fit(self, X, y):
        self.rows_, self.targets_ = X, y
        return super().fit(X, y)


def sigma(value=1.0):
    return PixelFeatures(sigmas=(value,))


@pytest.fixture
def data():
    return halves(SHAPES)


@pytest.mark.parametrize("passthrough", [True, False])
def test_rows_are_log_probabilities_out_of_fold_and_features(data, passthrough):
    images, labels = data
    model = StackedSegmenter(
        members(), Spy(), features=sigma(), cv=2, passthrough=passthrough, max_samples=None
    ).fit(images, labels)
    expected = []
    scenes = [CrossFit(m, cv=2).fit_transform(images, labels) for _, m in members()]
    for i, image in enumerate(images):
        parts = [np.maximum(np.log(found[i].proba), -MAX_COST) for found in scenes]
        if passthrough:
            parts.append(sigma()(image.astype(np.float32)))
        expected.append(np.concatenate(parts, axis=-1).reshape(labels[i].size, -1))
    spy = model.final_classifier_
    np.testing.assert_allclose(spy.rows_, np.concatenate(expected), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(spy.targets_, np.concatenate([lab.ravel() for lab in labels]))
    assert (model.features_ is None) == (not passthrough)


@pytest.mark.parametrize("passthrough", [True, False])
@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 8)], ids=str)
def test_predictions_are_those_of_the_final_classifier(passthrough, shape):
    images, labels = halves((shape, shape), channels=1)
    model = StackedSegmenter(
        members(), GaussianNB(), features=sigma(), cv=2, passthrough=passthrough
    ).fit(images, labels)
    for image, proba in zip(images, model.predict_proba(images), strict=True):
        parts = [
            np.maximum(np.log(m.predict_proba([image])[0]), -MAX_COST) for m in model.segmenters_
        ]
        if passthrough:
            parts.append(sigma()(image.astype(np.float32)))
        rows = np.concatenate(parts, axis=-1).reshape(labels[0].size, -1)
        expected = model.final_classifier_.predict_proba(rows).reshape(proba.shape)
        np.testing.assert_allclose(proba, expected, atol=2e-3)


def test_large_images_are_classified_in_boxes(rng, monkeypatch):
    """Neither the boxes of features nor the blocks of rows change a result."""
    images, labels = planes_problem(rng, shape=(20, 26))
    final = make_pipeline(StandardScaler(), LogisticRegression())
    make = StackedSegmenter([("a", Planes())], final, features=sigma(), cv=2, random_state=0)
    expected = make.fit(images, labels).predict_proba(images)
    monkeypatch.setattr("hybridseg.unary.pixels._MAX_PIXELS_PER_BOX", {2: 100})
    monkeypatch.setattr("hybridseg.unary.pixels._MAX_ROWS_PER_CALL", 37)
    found = make.fit(images, labels).predict_proba(images)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_features_may_be_any_callable(data):
    images, labels = data

    def gray(colors, *, spacing):
        return colors.mean(axis=-1, keepdims=True)

    model = StackedSegmenter([("a", pixels())], Spy(), features=gray, cv=2).fit(images, labels)
    assert model.final_classifier_.rows_.shape[1] == 3 + 1
    assert model.score(images, labels) > 0.8


def test_the_features_see_the_colors_of_the_first_segmenter():
    images, labels = halves()
    floats = [image.astype(np.float32) * 9 for image in images]
    pairs = [("a", pixels(intensity_range=(0, 9 * 255)))]
    scaled = StackedSegmenter(pairs, Spy(), features=sigma(), cv=3).fit(floats, labels)
    plain = StackedSegmenter([("a", pixels())], Spy(), features=sigma(), cv=3).fit(images, labels)
    np.testing.assert_allclose(
        scaled.final_classifier_.rows_, plain.final_classifier_.rows_, atol=0.05
    )


@pytest.mark.parametrize("max_samples", [60, 3000])
def test_pixels_are_drawn_evenly(data, max_samples):
    images, labels = data
    model = StackedSegmenter(
        [("a", pixels())], Spy(), cv=2, passthrough=False, max_samples=max_samples
    ).fit(images, labels)
    counts = np.bincount(model.final_classifier_.targets_)
    total = np.bincount(np.concatenate([lab.ravel() for lab in labels]))
    assert (
        counts.tolist() == [min(20, n) for n in total] if max_samples == 60 else counts.sum() < 3001
    )


def test_it_learns_which_segmenter_is_right_where(rng):
    """One segmenter knows one class, the other the others: no constant weights are as good."""
    images, labels = planes_problem(rng, n_images=6, shape=(20, 24), strengths=(2.5, 2.5))
    for image in images:
        left = image[:, :12]
        left[..., :3] = rng.random(left[..., :3].shape)  # the first is blind on the left
        image[:, 12:, 3:] = rng.random(image[:, 12:, 3:].shape)  # and the second on the right

    def column(colors, *, spacing):
        return np.broadcast_to(
            np.arange(colors.shape[1], dtype=np.float32)[:, np.newaxis], (*colors.shape[:-1], 1)
        )

    pairs = [("first", Planes()), ("second", Planes(3))]
    final = RandomForestClassifier(20, min_samples_leaf=4, random_state=0)
    train, test = (images[:4], labels[:4]), (images[4:], labels[4:])
    aware = StackedSegmenter(pairs, final, features=column, cv=2).fit(*train).score(*test)
    unaware = StackedSegmenter(pairs, final, passthrough=False, cv=2).fit(*train).score(*test)
    assert aware > unaware + 0.05
    for _, member in pairs:
        assert aware > member.fit(*train).score(*test) + 0.2


def test_only_out_of_fold_rows_show_an_overfitted_member():
    """A memorizer is certain of wrong labels; a final classifier of its costs would trust it."""
    images, labels = halves((*SHAPES, (24, 24), (20, 30)))
    rng = np.random.default_rng(0)
    noisy = [
        np.where(rng.random(lab.shape) < 0.35, rng.integers(0, 3, lab.shape), lab)
        for lab in labels[:4]
    ]
    memorizer = PixelClassifier(KNeighborsClassifier(1), features=sigma())
    pairs = [("memorizer", memorizer), ("regions", superpixels())]
    final = LogisticRegression(max_iter=500)
    crossed = StackedSegmenter(pairs, final, passthrough=False, cv=2).fit(images[:4], noisy)
    seen = [(name, member.fit(images[:4], noisy)) for name, member in pairs]
    in_sample = StackedSegmenter(seen, final, passthrough=False, cv="prefit").fit(images[:4], noisy)
    assert crossed.score(images[4:], labels[4:]) > in_sample.score(images[4:], labels[4:]) + 0.1


def test_the_order_of_members_is_that_of_columns(data):
    images, labels = data
    options = {"features": sigma(), "cv": 2, "max_samples": None}
    one = StackedSegmenter(members(), Spy(), **options).fit(images, labels)
    two = StackedSegmenter(members()[::-1], Spy(), **options).fit(images, labels)
    rows = one.final_classifier_.rows_
    swapped = np.concatenate([rows[:, 3:6], rows[:, :3], rows[:, 6:]], axis=1)
    np.testing.assert_array_equal(two.final_classifier_.rows_, swapped)


def test_pixels_left_out_have_no_influence(rng):
    images, labels = planes_problem(rng, values=(3, 5, 8))
    valid = [rng.random(lab.shape) < 0.7 for lab in labels]
    void = [rng.random(lab.shape) < 0.2 for lab in labels]
    found = []
    for color, outside, ignored in ((0.0, 3, 255), (1.0, -1, -1), (np.nan, 99, -7)):
        scenes, maps = [], []
        for image, lab, mask, hole in zip(images, labels, valid, void, strict=True):
            shown = image.copy()
            shown[~mask] = color
            scenes.append(Scene(shown, valid=mask))
            maps.append(np.where(mask, np.where(hole, ignored, lab), outside))
        model = StackedSegmenter(
            [("a", Planes(ignore_label=255))], Spy(), features=sigma(), cv=2, random_state=0
        ).fit(scenes, maps)
        found.append((model.final_classifier_.rows_, model.predict(scenes)))
    for rows, predicted in found:
        np.testing.assert_array_equal(rows, found[0][0])
        for mask, one, other in zip(valid, predicted, found[0][1], strict=True):
            np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(one == -1, ~mask)


def test_a_class_missing_in_a_fold(data):
    images, labels = data
    labels = [lab if i == 3 else np.where(lab == 2, -1, lab) for i, lab in enumerate(labels)]
    model = StackedSegmenter(members(), forest(), cv=2, random_state=0).fit(images, labels)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict_proba(images)[0].shape[-1] == 3


def test_only_images_held_out_are_learned_from():
    images, labels = halves(((24, 32),) * 5)
    model = StackedSegmenter(
        members(), Spy(), passthrough=False, cv="holdout", random_state=0, max_samples=None
    ).fit(images, labels)
    assert len(model.final_classifier_.rows_) == 24 * 32


def test_the_seed_reaches_the_final_classifier(data):
    images, labels = data
    found = []
    for seed in (0, 0, 1):
        final = RandomForestClassifier(5)
        model = StackedSegmenter(members(), final, features=sigma(), cv=2, random_state=seed)
        found.append(model.fit(images, labels).predict_proba(images)[0])
        assert final.random_state is None
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_the_default_is_saved_and_loaded(data, tmp_path):
    images, labels = data
    model = StackedSegmenter(members(), cv=2, random_state=0).fit(images, labels)
    assert model.score(images, labels) > 0.8
    found = load(save(model, tmp_path / "model.hybridseg"))
    for one, other in zip(found.predict_proba(images), model.predict_proba(images), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"final_classifier": LinearSVC()}, TypeError, r"final_classifier=LinearSVC.*no predict_p"),
        ({"final_classifier": 3}, ValueError, "'final_classifier' parameter"),
        ({"features": 3}, ValueError, "'features' parameter"),
        ({"passthrough": "yes"}, ValueError, "'passthrough' parameter"),
        ({"max_samples": 0}, ValueError, "'max_samples' parameter"),
        ({"cv": 1}, ValueError, "'cv' parameter"),
    ],
)
def test_mistakes_are_named(data, options, error, match):
    with pytest.raises(error, match=match):
        StackedSegmenter(members(), **options).fit(*data)


def test_tuned_and_refined(data):
    images, labels = data
    model = make_pipeline(StackedSegmenter(members(), forest(), features=sigma(), cv=2), GraphCut())
    grid = {
        "stackedsegmenter__features__sigmas": [(1.0,), (2.0,)],
        "stackedsegmenter__final_classifier": [DummyClassifier(), forest()],
        "stackedsegmenter__regions": ["drop"],
    }
    search = GridSearchCV(model, grid, cv=KFold(2)).fit(images, labels)
    assert isinstance(search.best_params_["stackedsegmenter__final_classifier"], type(forest()))
    assert search.best_estimator_.score(images, labels) > 0.8
