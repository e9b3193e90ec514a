from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.ndimage import gaussian_filter
from sklearn.naive_bayes import GaussianNB

from hybridseg.datasets import make_scenes
from hybridseg.metrics import mean_iou, pixel_accuracy


@pytest.mark.parametrize(
    ("shape", "n_classes", "n_channels"),
    [((33, 48), 2, 1), ((40, 31), 5, 3), ((9, 20, 14), 3, 2), ((1, 1), 2, 3), ((1, 12), 3, 7)],
)
def test_shapes_dtypes_and_labels(shape, n_classes, n_channels):
    scenes = make_scenes(3, shape=shape, n_classes=n_classes, n_channels=n_channels, random_state=0)
    assert len(scenes.images) == len(scenes.labels) == 3
    assert len(scenes.classes) == n_classes
    for image, labels in zip(scenes.images, scenes.labels, strict=True):
        assert (image.shape, image.dtype) == ((*shape, n_channels), np.uint8)
        assert (labels.shape, labels.dtype) == (shape, np.int32)
        assert 0 <= labels.min() <= labels.max() < n_classes


def test_seed_decides_everything():
    first, again, other = (make_scenes(2, random_state=seed) for seed in (3, 3, 4))
    assert_array_equal(first.images, again.images)
    assert_array_equal(first.labels, again.labels)
    assert (np.array(first.labels) != np.array(other.labels)).any()
    state = np.random.RandomState(3)
    assert_array_equal(make_scenes(2, random_state=state).images, first.images)
    assert (make_scenes(2, random_state=state).images[0] != first.images[0]).any()


def test_more_scenes_begin_with_the_same_scenes():
    few, many = make_scenes(2, random_state=1), make_scenes(5, random_state=1)
    assert_array_equal(many.images[:2], few.images)
    assert_array_equal(many.labels[:2], few.labels)


@pytest.mark.parametrize("rough", [{"noise": 0.3}, {"texture": 0.2}])
def test_noise_and_texture_leave_the_labels_alone(rough):
    plain = make_scenes(2, noise=0.0, texture=0.0, random_state=0)
    rough = make_scenes(2, **{"noise": 0.0, "texture": 0.0, **rough}, random_state=0)
    assert_array_equal(plain.labels, rough.labels)
    for clean, noisy in zip(plain.images, rough.images, strict=True):
        assert np.std(np.diff(noisy.astype(float), axis=0)) > 3 * np.std(
            np.diff(clean.astype(float), axis=0)
        )


def test_every_class_occurs_and_none_fills_the_set():
    maps = np.array(make_scenes(8, random_state=0).labels)
    shares = np.bincount(maps.ravel(), minlength=4) / maps.size
    assert shares.min() > 0.03
    assert shares.max() < 0.75


def test_single_pixels_are_ambiguous_and_neighbors_help():
    train, test = make_scenes(4, random_state=1), make_scenes(4, random_state=2)
    model = GaussianNB().fit(
        np.concatenate([image.reshape(-1, 3) for image in train.images]),
        np.concatenate([labels.ravel() for labels in train.labels]),
    )
    proba = [model.predict_proba(i.reshape(-1, 3)).reshape(96, 128, 4) for i in test.images]
    single = [p.argmax(-1) for p in proba]
    smooth = [gaussian_filter(p, (1.5, 1.5, 0)).argmax(-1) for p in proba]
    assert 0.55 < pixel_accuracy(test.labels, single) < 0.85
    assert mean_iou(test.labels, smooth) > mean_iou(test.labels, single) + 0.1


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_scenes": 0}, ValueError, "n_scenes=0"),
        ({"n_classes": 1}, ValueError, "n_classes=1"),
        ({"n_channels": 1.5}, TypeError, "n_channels=1.5"),
        ({"noise": -0.1}, ValueError, "noise=-0.1"),
        ({"texture": np.nan}, ValueError, "texture=nan"),
        ({"shape": (9,)}, ValueError, r"expected \(H, W\) or \(D, H, W\)"),
        ({"shape": (9, 0)}, ValueError, "shape=0"),
    ],
)
def test_bad_parameters(options, error, match):
    with pytest.raises(error, match=match):
        make_scenes(**{"n_scenes": 1, **options})
