"""If the classes are given, label maps may lack some, or hold a single one."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")
from torch import nn  # noqa: E402

from hybridseg import CrossFit, GridCRF, PixelClassifier, SuperpixelClassifier  # noqa: E402
from hybridseg.features import SLIC  # noqa: E402
from hybridseg.losses import CrossEntropy  # noqa: E402
from tests.deep.subjects import IMAGES, LABELS, quick  # noqa: E402
from tests.subjects import halves  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

VALUES = np.array([2, 5, 9])
#: Label maps with the values 2, 5 and 9; the first lacks 9.
MAPS = [VALUES[np.where(y == 2, 1, y) if i == 0 else y] for i, y in enumerate(LABELS)]
ONE = [np.full_like(y, 2) for y in LABELS]


def named(model):
    return type(model).__name__


def forest():
    return RandomForestClassifier(5, random_state=0)


def shallow():
    return [
        PixelClassifier(forest(), random_state=0),
        PixelClassifier(GaussianNB(), random_state=0),
        SuperpixelClassifier(forest(), superpixels=SLIC(n_segments=40), random_state=0),
    ]


def models():
    return [*shallow(), quick()]


@pytest.mark.parametrize("model", models(), ids=named)
@pytest.mark.parametrize("classes", [(9, 2, 5), np.array([2, 5, 9, 11], np.uint8)], ids=str)
def test_classes_that_y_lacks_are_told_apart(model, classes):
    model.set_params(classes=classes)
    for y in ([MAPS[0], *ONE[1:]], ONE):
        fitted = clone(model).fit(IMAGES, y)
        assert fitted.classes_.tolist() == sorted(np.asarray(classes).tolist())
        proba = fitted.predict_proba(IMAGES)[0]
        assert proba.shape == (*LABELS[0].shape, len(classes))
        np.testing.assert_allclose(proba.sum(axis=-1), 1, atol=1e-4)
        assert set(np.unique(fitted.predict(IMAGES)[0])) <= set(fitted.classes_)


@pytest.mark.parametrize("model", shallow(), ids=named)
def test_one_class_is_certain_of_itself(model):
    found = model.set_params(classes=[2, 5]).fit(IMAGES, ONE).predict(IMAGES)
    assert all((each == 2).all() for each in found)


@pytest.mark.parametrize("model", models(), ids=named)
def test_classes_change_nothing_where_all_occur(model):
    plain = clone(model).fit(IMAGES, MAPS).transform(IMAGES)
    told = clone(model).set_params(classes=[2, 5, 9]).fit(IMAGES, MAPS).transform(IMAGES)
    for one, other in zip(plain, told, strict=True):
        np.testing.assert_array_equal(one.unary, other.unary)


@pytest.mark.parametrize("model", [PixelClassifier(), quick()], ids=named)
@pytest.mark.parametrize(
    ("classes", "error", "match"),
    [
        (
            [2, 5],
            ValueError,
            r"y holds the classes \[2, 5, 9\], but classes=\[2, 5\]",
        ),
        ([2], ValueError, r"classes=\[2\]; expected at least two different"),
        ([2, 5, 9, 9], ValueError, "different label values"),
        ([-1, 2, 5, 9], ValueError, "none negative"),
        ([[2, 5, 9]], ValueError, "different label values"),
        ([2.0, 5.5, 9.0], TypeError, "expected integers"),
        ([2, 5, 9, 255], ValueError, "contains ignore_label=255; remove it"),
        (3, ValueError, "'classes' parameter"),
    ],
)
def test_classes_mistakes_are_named(model, classes, error, match):
    with pytest.raises(error, match=match):
        model.set_params(classes=classes, ignore_label=255).fit(IMAGES, MAPS)


def test_the_error_of_one_class_names_the_parameter():
    with pytest.raises(ValueError, match=r"y holds one class only, 2; .* classes="):
        quick().fit(IMAGES, ONE)


# Folds


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weight": [1, 2, 3]},
        {"class_weight": {9: 3.0, 2: 1.0}},
        {"class_weight": "median_frequency"},
        {"loss": CrossEntropy([1, 2, 3])},
        {"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))},
        {"network": nn.Conv2d(3, 3, 1), "network_options": None},
    ],
    ids=str,
)
def test_folds_may_lack_a_class(settings):
    """Two of the three folds train on one image, and in one of them this image lacks 9."""
    model = quick(**settings, classes=VALUES, max_epochs=1, validation=(IMAGES[:1], MAPS[:1]))
    splits = [([0], [1]), ([1], [0]), ([0, 2], [1])]
    scores = cross_val_score(model, IMAGES, MAPS, cv=splits, error_score="raise")
    assert np.isfinite(scores).all()
    crossed = CrossFit(model.set_params(classes=None), cv=KFold(2))
    images, maps = [IMAGES[0], IMAGES[1]], [MAPS[0], MAPS[1]]
    for scene in crossed.fit_transform(images, maps):
        assert scene.unary.shape[-1] == 3
        assert scene.meta["out_of_fold"]


def test_forests_of_folds_know_the_weights_of_all_classes():
    weighted = RandomForestClassifier(5, class_weight={0: 1, 1: 2, 2: 3}, random_state=0)
    model = PixelClassifier(weighted, classes=VALUES)
    splits = [([0], [1]), ([1], [0])]
    scores = cross_val_score(model, IMAGES, MAPS, cv=splits, error_score="raise")
    assert np.isfinite(scores).all()


def test_segmenters_inside_pipelines_are_told_the_classes():
    inner = quick(class_weight=[1, 2, 3], max_epochs=1)
    crossed = CrossFit(make_pipeline(inner, GridCRF()), cv=KFold(2))
    found = crossed.fit_transform(IMAGES[:2], MAPS[:2])
    assert [scene.unary.shape[-1] for scene in found] == [3, 3]
    frozen = FrozenEstimator(quick(max_epochs=1).fit(IMAGES, MAPS))
    for segmenter in (frozen, make_pipeline(frozen, GridCRF())):
        found = CrossFit(segmenter, cv=KFold(2)).fit_transform(IMAGES[:2], MAPS[:2])
        assert len(found) == 2


# Training further


@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        (ONE, None, [2, 5, 9]),
        ([np.full_like(y, 5) for y in LABELS], None, [2, 5, 9]),
        ([np.full_like(y, 12) for y in LABELS], None, [2, 5, 9, 12]),
        (ONE, [2, 5, 9], [2, 5, 9]),
        (ONE, [2, 12], [2, 12]),
        ([np.where(y == 9, 9, -1) for y in MAPS], None, [2, 5, 9]),
    ],
)
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_trained_network_goes_on_with_one_class(y, classes, expected, class_weight):
    model = quick(max_epochs=1, class_weight=class_weight).fit(IMAGES, MAPS)
    model.partial_fit(IMAGES, y, classes=classes)
    assert model.classes_.tolist() == expected
    assert model.predict_proba(IMAGES)[0].shape[-1] == len(expected)


def test_the_first_partial_fit_may_see_one_class_of_those_named():
    model = quick(max_epochs=1).partial_fit(IMAGES, ONE, classes=[2, 5, 9])
    assert model.classes_.tolist() == [2, 5, 9]
    assert model.partial_fit(IMAGES, MAPS).classes_.tolist() == [2, 5, 9]
    by_parameter = quick(max_epochs=1, classes=[2, 5, 9]).partial_fit(IMAGES, ONE)
    assert by_parameter.classes_.tolist() == [2, 5, 9]
    with pytest.raises(ValueError, match="y holds one class only, 2"):
        quick().partial_fit(IMAGES, ONE)


def test_the_parameter_counts_when_training_goes_on():
    model = quick(max_epochs=1).fit(IMAGES, MAPS).set_params(classes=[2, 5, 9, 12])
    assert model.partial_fit(IMAGES, ONE).classes_.tolist() == [2, 5, 9, 12]
    again = model.set_params(warm_start=True, classes=[2, 5]).fit(IMAGES, ONE)
    assert again.classes_.tolist() == [2, 5]


def test_volumes_of_one_class():
    volumes = [np.random.default_rng(0).random((8, 10, 12))]
    y = [np.zeros((8, 10, 12), int)]
    options = {"width": 4, "depth": 1}
    model = quick(network="unet3d", network_options=options, classes=[0, 1], crop_size=8)
    assert model.fit(volumes, y).predict_proba(volumes)[0].shape == (8, 10, 12, 2)


def test_blocks_of_one_image_may_lack_a_class():
    images, labels = halves(((24, 32),))
    crossed = CrossFit(quick(class_weight=[1, 2, 3], max_epochs=1), cv=2)
    found = crossed.fit_transform(images, labels)
    assert found[0].unary.shape[-1] == 3
