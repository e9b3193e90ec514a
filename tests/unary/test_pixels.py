"""The choice of training pixels, work in parts, missing pixels, and seeds."""

import tracemalloc

import numpy as np
import pytest
from joblib import Parallel, cpu_count, delayed, parallel_config
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hybridseg import PixelClassifier, Scene
from hybridseg.features import PixelFeatures
from hybridseg.metrics import mean_iou
from hybridseg.unary import classifier_proba
from hybridseg.unary import pixels as pixels_module
from hybridseg.unary.pixels import draw_evenly, even_quotas, free_cores
from tests.subjects import forest, halves, pixels, superpixels


def test_all_labeled_pixels_when_few(rng):
    labels = np.array([-1, 0, 2, -1, 1])
    assert np.array_equal(draw_evenly(labels, 10, rng), [1, 2, 4])
    assert np.array_equal(draw_evenly(labels, None, rng), [1, 2, 4])


def test_drawn_evenly_over_the_classes(rng):
    labels = np.repeat([0, 1, 5, -1], [10_000, 500, 20, 3_000])
    chosen = draw_evenly(labels, 300, rng)
    assert len(np.unique(chosen)) == len(chosen)
    # the other classes get the share that the rare class cannot fill
    assert np.bincount(labels[chosen], minlength=6)[[0, 1, 5]].tolist() == [140, 140, 20]
    # the pixels come from the whole image, not only from its beginning
    assert chosen[labels[chosen] == 0].max() > 8_000


def test_one_pixel_more_changes_one_pixel(rng):
    """The number of pixels of each class never jumps with the sample size."""
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    shares = [np.bincount(labels[draw_evenly(labels, n, rng)]) for n in range(1, 1003)]
    steps = np.abs(np.diff(shares, axis=0))
    assert steps.max() == 1
    assert np.all(np.sum(shares, axis=1) > np.minimum(np.arange(1, 1003), 1000) - 3)
    assert shares[-1].tolist() == [700, 200, 100]


def test_nothing_to_draw(rng):
    assert draw_evenly(np.full(5, -1), 3, rng).size == 0


def test_fewer_samples_than_classes(rng):
    chosen = draw_evenly(np.arange(10), 3, rng)
    assert len(chosen) == 10  # one for each class, because no class may vanish


def test_quotas_are_bounded_and_even(rng):
    """Quotas are bounded in total, and even over classes and over the images of a class."""
    for _ in range(200):
        counts = rng.integers(0, rng.choice([2, 30, 10_000]), rng.integers(1, 9, 2))
        total = int(rng.integers(1, 20_000))
        quotas = even_quotas(counts, total, rng)
        sizes, given = counts.sum(axis=0), quotas.sum(axis=0)
        assert np.all((quotas >= 0) & (quotas <= counts))
        assert quotas.sum() <= max(total, (sizes > 0).sum())
        assert quotas.sum() > min(total, counts.sum()) - counts.shape[1]
        assert np.all((given > 0) == (sizes > 0))
        whole = given == sizes
        assert len(set(given[~whole])) <= 1  # all classes that are not used up give the same number
        assert given[whole].max(initial=0) <= given[~whole].max(initial=total)
        for column, full in zip(quotas.T, counts.T, strict=True):
            part = column < full
            assert np.ptp(column[part]) <= 1 if part.any() else True
            assert column[~part].max(initial=0) <= column[part].max(initial=total) + 1
    scribbles = np.array([[3, 0, 9], [2, 7, 0]])
    assert np.array_equal(even_quotas(scribbles, 21, rng), scribbles)


class Counting(DummyClassifier):
    """A classifier that counts its training rows."""

    def fit(self, rows, targets):
        self.n_rows_ = np.bincount(targets)
        return super().fit(rows, targets)


def test_max_samples_bounds_all_images_together():
    images, labels = halves()
    for n_copies in (1, 5):
        model = PixelClassifier(Counting(), max_samples=300, random_state=0)
        model.fit(images * n_copies, labels * n_copies)
        assert model.classifier_.n_rows_.tolist() == [100, 100, 100]
    with_all = PixelClassifier(Counting(), max_samples=None).fit(images, labels)
    assert with_all.classifier_.n_rows_.sum() == sum(truth.size for truth in labels)


def test_images_that_give_nothing_are_not_read(tmp_path):
    images, labels = halves()
    nothing = np.full(labels[0].shape, -1)
    model = PixelClassifier(forest(), random_state=0)
    alone = clone(model).fit(images, labels)
    beside = clone(model).fit([*images, str(tmp_path / "absent.png")], [*labels, nothing])
    assert np.array_equal(alone.predict_proba(images)[0], beside.predict_proba(images)[0])


def test_the_default_is_the_same_on_any_number_of_cores(monkeypatch):
    images, labels = halves(((64, 96), (40, 50)))
    found = []
    monkeypatch.setattr(classifier_proba, "_MIN_ROWS_PER_THREAD", 100)
    for n_cores in (1, 2, 5):
        monkeypatch.setattr(pixels_module, "free_cores", lambda n_cores=n_cores: n_cores)
        model = PixelClassifier(max_samples=500, random_state=0).fit(images, labels)
        found.append(model.predict_proba(images)[0])
        assert model.classifier_.n_jobs == 1
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_one_core_within_a_worker(backend):
    """Otherwise every worker of a search would start one thread for each core."""
    assert free_cores() == cpu_count()
    assert Parallel(n_jobs=2, backend=backend)(delayed(free_cores)() for _ in range(2)) == [1, 1]
    with parallel_config(n_jobs=3):
        assert free_cores() == 3


def test_random_state_reaches_the_classifier():
    images, labels = halves()
    a, b = (PixelClassifier(max_samples=50, random_state=3).fit(images, labels) for _ in range(2))
    assert np.array_equal(a.predict_proba(images)[0], b.predict_proba(images)[0])
    assert a.classifier_.random_state is not None
    kept = PixelClassifier(forest().set_params(random_state=7), random_state=3).fit(images, labels)
    assert kept.classifier_.random_state == 7


def test_random_state_reaches_nested_classifiers():
    images, labels = halves()
    inner = make_pipeline(
        StandardScaler(),
        VotingClassifier(
            [("a", RandomForestClassifier(3)), ("b", RandomForestClassifier(3, random_state=7))],
            voting="soft",
        ),
    )
    a, b = (PixelClassifier(inner, random_state=0).fit(images, labels) for _ in range(2))
    assert np.array_equal(a.predict_proba(images)[0], b.predict_proba(images)[0])
    voters = a.classifier_[-1].named_estimators
    assert voters["b"].random_state == 7
    assert dict(inner[-1].estimators)["a"].random_state is None  # the fitted one is a copy


def test_new_parameters_do_not_reach_a_fitted_model():
    images, labels = halves()
    model = PixelClassifier(forest(), features=PixelFeatures(sigmas=(1.0,))).fit(images, labels)
    expected = model.predict_proba(images)[0]
    scenes = model.transform([image.copy() for image in images])
    model.set_params(features__sigmas=(2.0, 3.0))
    np.testing.assert_array_equal(model.predict_proba([images[0].copy()])[0], expected)
    np.testing.assert_array_equal(scenes[0].proba, expected)


def scribbled(shape, seed=0):
    """An image of two textures with a few labeled pixels of each."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (*shape, 3), dtype=np.uint8)
    image[..., shape[-1] // 2 :, :] += 60
    labels = np.full(shape, -1)
    labels[..., 3:5, 4:9], labels[..., -6:-3, -9:-4] = 0, 1
    return image, labels


@pytest.mark.parametrize(("shape", "spacing"), [((61, 90), (1.0, 2.0)), ((14, 20, 27), (3, 1, 1))])
def test_parts_do_not_show(monkeypatch, shape, spacing):
    """Large images are processed in parts, which equals a plain function on the whole image."""
    image, labels = scribbled(shape)
    scenes = [Scene(image, spacing=spacing)]
    extract = PixelFeatures(sigmas=(1.0, 2.0), position=True)
    whole = PixelClassifier(
        GaussianNB(var_smoothing=0.01), features=lambda colors, spacing: extract(colors, spacing)
    )
    expected = whole.fit(scenes, [labels]).predict_proba(scenes)[0]
    monkeypatch.setattr("hybridseg.unary.pixels._MAX_PIXELS_PER_BOX", {2: 700, 3: 900})
    parts = clone(whole).set_params(features=extract).fit(scenes, [labels])
    found = parts.predict_proba([scenes[0].replace()])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_memory_does_not_follow_the_features(monkeypatch):
    image, labels = scribbled((600, 700))
    model = PixelClassifier(forest(), features=PixelFeatures(sigmas=(1.0, 2.0)))
    stack = 31 * labels.size * 4
    monkeypatch.setattr("hybridseg.unary.pixels._MAX_PIXELS_PER_BOX", {2: 1 << 14})
    tracemalloc.start()
    try:
        model.fit([image], [labels])
        model.predict([image])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * stack


def test_missing_pixels_take_the_nearest_colors():
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    valid = np.ones((4, 5), bool)
    valid[1, 2] = False
    beside = Scene(image, valid=valid, spacing=(5.0, 1.0)).filled_colors
    above = Scene(image, valid=valid, spacing=(1.0, 5.0)).filled_colors
    assert beside[1, 2, 0] in image[1, [1, 3]]
    assert above[1, 2, 0] in image[[0, 2], 2]
    np.testing.assert_array_equal(beside[valid, 0], image[valid])
    assert (Scene(image, valid=np.zeros((4, 5), bool)).filled_colors == 0).all()


@pytest.mark.parametrize("make", [pixels, superpixels])
def test_missing_pixels_influence_no_others(make):
    """The stripes are vertical, so missing rows are filled like the border of a cropped image."""
    rng = np.random.default_rng(0)
    row = rng.uniform(0.2, 1, (1, 40, 3)).repeat(30, axis=0)
    labels = np.broadcast_to((row[..., 0] > 0.6).astype(int), (30, 40))
    model = make(random_state=0).fit([row], [labels])
    valid = np.ones((30, 40), bool)
    valid[18:] = False
    broken = np.where(valid[..., None], row, np.nan)
    expected, found = model.transform([row[:18], Scene(broken, valid=valid)])
    np.testing.assert_array_equal(found.unary[:18], expected.unary)


@pytest.mark.parametrize("make", [pixels, superpixels])
def test_no_labeled_pixel_is_valid(make):
    images, labels = halves()
    scenes = [Scene(image, valid=np.zeros(image.shape[:2], bool)) for image in images]
    with pytest.raises(ValueError, match="y holds no labeled pixel"):
        make().fit(scenes, labels)


def test_own_features():
    """Any function from colors to features is accepted."""
    images, labels = halves()
    model = PixelClassifier(
        LogisticRegression(max_iter=500), features=lambda colors, spacing: colors / 255
    ).fit(images, labels)
    assert mean_iou(labels, model.predict(images)) > 0.5


def test_blocks_do_not_show(monkeypatch):
    images, labels = halves()
    model = PixelClassifier(forest()).fit(images, labels)
    expected = model.predict_proba(images)[0]
    monkeypatch.setattr("hybridseg.unary.pixels._MAX_ROWS_PER_CALL", 100)
    assert np.array_equal(model.predict_proba([images[0].copy()])[0], expected)
    assert expected.sum(-1) == pytest.approx(np.ones(expected.shape[:2]), abs=1e-5)
