"""Every estimator passes the same tests: scikit-learn's rules, and the rules for images."""

import pickle

import imageio.v3 as iio
import numpy as np
import pytest
import sklearn
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import check_valid_tag_types

from hybridseg import ImageList, Scene
from hybridseg.metrics import mean_iou
from tests.subjects import SEGMENTERS, halves

DATA_FREE = [
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_mixin_order,
    estimator_checks.check_estimator_tags_renamed,
    check_valid_tag_types,
]


@pytest.fixture(params=SEGMENTERS, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def make(name):
    return SEGMENTERS[name]


@pytest.fixture(scope="module")
def fitted(make):
    images, labels = halves()
    return make().fit(images, labels)


@pytest.mark.parametrize("check", DATA_FREE, ids=lambda check: check.__name__)
def test_scikit_learn_rules(name, make, check):
    check(name, make())


def test_tags(make):
    tags = get_tags(make())
    assert tags.estimator_type == "segmenter"
    assert not tags.input_tags.two_d_array
    assert not is_classifier(make())
    assert not is_regressor(make())


def test_fit_returns_self_and_leaves_parameters(make):
    images, labels = halves()
    model = make()
    before = {key: repr(value) for key, value in model.get_params().items()}
    assert model.fit(images, labels) is model
    assert {key: repr(value) for key, value in model.get_params().items()} == before
    learned = set(vars(model)) - set(model.get_params(deep=False))
    assert learned, "fit set nothing"
    assert all(key.endswith("_") and not key.startswith("_") for key in learned), learned


def test_unfitted(make):
    images, labels = halves()
    for method in ("predict", "transform"):
        with pytest.raises(NotFittedError, match="not fitted"):
            getattr(make(), method)(images)
    with pytest.raises(NotFittedError, match="not fitted"):
        make().score(images, labels)


def test_predictions(fitted):
    images, labels = halves()
    found = fitted.predict(images)
    assert isinstance(found, ImageList)
    assert [m.shape for m in found] == [m.shape for m in labels]
    assert all(np.isin(m, fitted.classes_).all() and m.dtype.kind == "i" for m in found)
    assert np.array_equal(fitted.classes_, [0, 1, 2])


def test_probabilities(fitted):
    images, _ = halves()
    if not hasattr(fitted, "predict_proba"):
        return
    proba = fitted.predict_proba(images)
    assert isinstance(proba, ImageList)
    for p, found in zip(proba, fitted.predict(images), strict=True):
        assert p.dtype == np.float32
        assert p.shape == (*found.shape, 3)
        assert np.abs(p.sum(axis=-1) - 1).max() < 1e-5
        taken = np.take_along_axis(p, np.searchsorted(fitted.classes_, found)[..., None], -1)
        assert np.all(taken[..., 0] >= p.max(axis=-1) - 1e-6)


def test_transform_gives_scenes(fitted):
    images, _ = halves()
    scenes = fitted.transform(images)
    assert isinstance(scenes, ImageList)
    for scene, image, found in zip(scenes, images, fitted.predict(images), strict=True):
        assert isinstance(scene, Scene)
        assert scene.image is image
        assert scene.unary.shape == (*image.shape[:2], 3)
        assert scene.unary.dtype == np.float32
        assert np.isfinite(scene.unary).all()
        assert np.array_equal(scene.prediction, found)


def test_score_is_mean_iou(fitted):
    images, labels = halves(seed=1)
    expected = mean_iou(labels, fitted.predict(images))
    assert fitted.score(images, labels) == pytest.approx(expected)
    weighted = fitted.score(images, labels, sample_weight=[1.0, 0.0, 0.0])
    assert weighted == pytest.approx(fitted.score(images[:1], labels[:1]))


def test_learns(name, fitted):
    images, labels = halves(seed=0)
    floor = 0.2 if name == "DeepSegmenter" else 0.8  # two epochs of a tiny network
    assert fitted.score(images, labels) > floor


def test_pickle_and_deterministic_refit(make, fitted):
    images, labels = halves()
    expected = fitted.predict(images)
    for model in (pickle.loads(pickle.dumps(fitted)), make().fit(images, labels)):
        for a, b in zip(model.predict(images), expected, strict=True):
            assert np.array_equal(a, b)


def test_clone_forgets(fitted):
    with pytest.raises(NotFittedError, match="not fitted"):
        clone(fitted).predict(halves()[0])


def test_frozen(fitted):
    images, labels = halves()
    frozen = FrozenEstimator(fitted).fit(images[:1], labels[:1])
    for a, b in zip(frozen.predict(images), fitted.predict(images), strict=True):
        assert np.array_equal(a, b)


def test_inputs_are_not_written(make):
    images, labels = halves()
    for array in [*images, *labels]:
        array.setflags(write=False)
    kept = [image.copy() for image in images]
    make().fit(images, labels).predict(images)
    assert all(np.array_equal(a, b) for a, b in zip(images, kept, strict=True))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_dtypes_agree(name, make, fitted, dtype):
    """The same image in another dtype gives (nearly) the same segmentation."""
    images, labels = halves()
    scale = {"uint8": 1, "uint16": 257}.get(dtype, 1 / 255)
    same = [(image.astype(np.float64) * scale).astype(dtype) for image in images]
    found = fitted.predict(same)
    agreement = np.mean(
        [np.mean(a == b) for a, b in zip(found, fitted.predict(images), strict=True)]
    )
    assert agreement > (0.98 if dtype == "float16" else 0.999)
    assert len(make().fit(same[:1], labels[:1]).predict(same[1:])) == 2


@pytest.mark.parametrize("layout", ["transposed", "strided", "fortran", "stacked"])
def test_memory_layouts_agree(fitted, layout):
    images, _ = halves(((24, 24), (24, 24)))
    expected = fitted.predict(images)
    other = {
        "transposed": lambda x: np.ascontiguousarray(x.transpose(2, 1, 0)).transpose(2, 1, 0),
        "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        "fortran": np.asfortranarray,
        "stacked": lambda x: x,
    }[layout]
    changed = [other(image) for image in images]
    found = fitted.predict(np.stack(changed) if layout == "stacked" else changed)
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("channels", [0, 1, 3, 7])
def test_channels(make, channels):
    images, labels = halves(channels=max(channels, 1))
    if channels == 0:
        images = [image[..., 0] for image in images]
    found = make().fit(images, labels).predict(images)
    assert [m.shape for m in found] == [m.shape for m in labels]


def test_gray_with_and_without_channel_axis(make):
    images, labels = halves(channels=1)
    flat = [image[..., 0] for image in images]
    a = make().fit(images, labels)
    b = make().fit(flat, labels)
    for x, y in zip(a.predict(flat), b.predict(images), strict=True):
        assert np.array_equal(x, y)


@pytest.mark.parametrize("values", [(7, 40, 1000), (3, 2, 1), (200, 0, 254)])
def test_label_values_come_back(make, values):
    images, labels = halves(values=values)
    model = make().fit(images, labels)
    assert np.array_equal(model.classes_, sorted(values))
    assert set(np.unique(model.predict(images)[0])) <= set(values)
    order = np.argsort(values)
    plain = make().fit(images, [np.argsort(order)[lab] for lab in halves()[1]])
    for a, b in zip(model.predict(images), plain.predict(images), strict=True):
        assert np.array_equal(a, np.sort(values)[b])


@pytest.mark.parametrize("ignore_label", [None, 255])
def test_void_pixels(make, ignore_label):
    """The values of void pixels change neither the fit nor the score."""
    images, labels = halves()
    void = -1 if ignore_label is None else ignore_label
    masked = [lab.copy() for lab in labels]
    for lab in masked:
        lab[:3] = void
    model = make(ignore_label=ignore_label).fit(images, masked)
    assert np.array_equal(model.classes_, [0, 1, 2])
    spoiled = [np.where(lab == void, -7, lab) for lab in masked]
    assert model.score(images, masked) == pytest.approx(model.score(images, spoiled))


def test_class_missing_in_one_image(make):
    images, labels = halves()
    labels[0] = np.where(labels[0] == 2, -1, labels[0])
    labels[1] = np.where(labels[1] == 1, -1, labels[1])
    model = make().fit(images, labels)
    assert np.array_equal(model.classes_, [0, 1, 2])
    assert len(model.predict(images[:1])) == 1


def test_bool_labels(make):
    images, labels = halves()
    model = make().fit(images, [lab == 1 for lab in labels])
    assert np.array_equal(model.classes_, [0, 1])


def test_sparse_labels(make):
    images, labels = halves()
    rng = np.random.default_rng(0)
    sparse = [np.where(rng.random(lab.shape) < 0.2, lab, -1) for lab in labels]
    assert make().fit(images, sparse).score(images, labels) > 0.1


def test_paths(make, fitted, tmp_path):
    images, labels = halves()
    paths, label_paths = [], []
    for i, (image, lab) in enumerate(zip(images, labels, strict=True)):
        paths.append(tmp_path / f"{i}.png")
        label_paths.append(str(tmp_path / f"{i}_label.png"))
        iio.imwrite(paths[-1], image)
        iio.imwrite(label_paths[-1], lab.astype(np.uint8))
    for a, b in zip(fitted.predict(paths), fitted.predict(images), strict=True):
        assert np.array_equal(a, b)
    model = make().fit([str(path) for path in paths], label_paths)
    assert model.score(paths, label_paths) == pytest.approx(model.score(images, labels))


def test_pandas_output_leaves_scenes_alone(make):
    pytest.importorskip("pandas")
    images, labels = halves()
    with sklearn.config_context(transform_output="pandas"):
        model = make().fit(images, labels)
        assert isinstance(model.transform(images)[0], Scene)
        assert isinstance(make().fit_transform(images, labels)[0], Scene)
    assert model.set_output(transform="pandas") is model


def test_failed_fit_keeps_what_was_fitted(make):
    images, labels = halves()
    model = make().fit(images, labels)
    expected = model.predict(images)
    bad = [images[0], images[1], np.full((20, 26, 3), np.nan)]
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.fit(bad, labels)
    for a, b in zip(model.predict(images), expected, strict=True):
        assert np.array_equal(a, b)


def test_volumes(name, make):
    images, labels = halves(((10, 12, 14), (8, 10, 12)), channels=1)
    volumes = [image[..., 0] for image in images]
    if name == "DeepSegmenter":
        with pytest.raises(ValueError, match="3-D|volume"):
            make().fit(volumes, labels)
        return
    model = make().fit(volumes, labels)
    inner = getattr(model, "estimator_", getattr(model, "segmenter_", model))
    assert inner.spatial_ndim_ == 3
    found = model.predict(volumes)
    assert [m.shape for m in found] == [(10, 12, 14), (8, 10, 12)]
    assert mean_iou(labels, found) > 0.6


def test_valid_mask(fitted):
    """Invalid pixels may be NaN, and exactly these pixels get the label -1."""
    images, _ = halves()
    image = images[0].astype(np.float32) / 255
    valid = np.ones(image.shape[:2], bool)
    valid[:, -6:] = False
    image[~valid] = np.nan
    found = fitted.predict([Scene(image, valid=valid)])[0]
    assert np.array_equal(found == -1, ~valid)


def test_spacing_is_accepted(fitted):
    images, _ = halves()
    found = fitted.predict([Scene(images[0], spacing=(2.0, 1.0))])
    assert found[0].shape == images[0].shape[:2]
