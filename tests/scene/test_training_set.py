"""Pairs of images and label maps are checked once and read one at a time."""

import numpy as np
import pytest

from hybridseg import Scene
from hybridseg.scene.training_set import TrainingSet


def read(X, y, ignore_label=None, **options):
    return TrainingSet.read(X, y, "dtype", ignore_label, **options)


@pytest.fixture
def pairs(rng):
    shapes = (5, 7), (6, 4), (3, 9)
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    labels = [rng.choice([-3, 2, 5, 9], shape) for shape in shapes]
    return images, labels


def test_labels_become_indices_of_the_classes(pairs):
    images, labels = pairs
    training = read(images, labels)
    assert training.classes.tolist() == training.present.tolist() == [2, 5, 9]
    assert (training.spatial_ndim, training.n_channels, len(training)) == (2, 3, 3)
    for (scene, indices), image, given in zip(training, images, labels, strict=True):
        np.testing.assert_array_equal(scene.image, image)
        np.testing.assert_array_equal(indices == -1, given < 0)
        np.testing.assert_array_equal(training.classes[indices[indices >= 0]], given[given >= 0])


def test_counts_are_those_of_the_pairs(pairs):
    training = read(*pairs)
    expected = [np.bincount(indices[indices >= 0], minlength=3) for _, indices in training]
    np.testing.assert_array_equal(training.counts(), expected)


def test_ignored_and_invalid_pixels_are_left_out(pairs):
    images, labels = pairs
    training = read(images, labels, ignore_label=5)
    assert training.classes.tolist() == [2, 9]
    assert ((training[0][1] == -1) == ((labels[0] < 0) | (labels[0] == 5))).all()
    valid = np.zeros((5, 7), bool)
    valid[1:, 2:] = True
    scenes = [Scene(images[0], valid=valid), *images[1:]]
    assert (read(scenes, labels)[0][1][~valid] == -1).all()


def test_named_classes_may_be_missing_and_known_ones_are_added(pairs):
    images, labels = pairs
    named = read(images, labels, classes=[9, 0, 5, 2])
    assert named.classes.tolist() == [0, 2, 5, 9]
    assert named.present.tolist() == [2, 5, 9]
    np.testing.assert_array_equal(named.counts()[:, 0], 0)
    assert read(images, labels, known=[7, 2]).classes.tolist() == [2, 5, 7, 9]
    with pytest.raises(ValueError, match=r"y holds the classes \[2, 5, 9\], but classes=\[2, 5\]"):
        read(images, labels, classes=[2, 5])


def test_there_must_be_enough_classes(pairs):
    images, labels = pairs
    one = [np.where(given == 5, 5, -1) for given in labels]
    with pytest.raises(ValueError, match="y holds one class only, 5"):
        read(images, one)
    assert read(images, one, n_least=1).classes.tolist() == [5]
    assert read(images, one, known=[6]).classes.tolist() == [5, 6]
    with pytest.raises(ValueError, match="y holds no labeled pixel"):
        read(images, [np.full_like(given, -1) for given in labels], n_least=1)


@pytest.mark.parametrize(
    ("y", "error", "said"),
    [
        (None, TypeError, "y is None"),
        ([], ValueError, "y is empty"),
        ([np.zeros(4, int)] * 3, ValueError, "wrap a single map in a list"),
        ([np.zeros((1, 2, 3, 4), int)] * 3, ValueError, "expected label maps"),
    ],
)
def test_label_maps_that_are_none(pairs, y, error, said):
    with pytest.raises(error, match=said):
        read(pairs[0], y)


def test_pairs_fit_together(pairs):
    images, labels = pairs
    with pytest.raises(ValueError, match=r"y\[1\] has shape \(5, 7\), but its image has \(6, 4\)"):
        list(read(images, [labels[0], labels[0], labels[2]]))
    gray = read([images[0], images[1][..., 0], images[2]], labels)
    with pytest.raises(ValueError, match=r"X\[1\] has 1 channels but X\[0\] has 3"):
        gray[1]
    for n_channels in (1, 3, 4):
        painted = [np.zeros((*given.shape, n_channels), int) for given in labels]
        with pytest.raises(ValueError, match="looks like an image with channels"):
            read(images, painted)


def test_volumes_are_read_by_the_rank_of_their_labels(rng):
    volume = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    training = read([volume[..., np.newaxis]], [volume % 2])
    assert (training.spatial_ndim, training.n_channels) == (3, 1)


def test_the_label_zero_is_a_class_and_not_void():
    labels = [np.array([[0, 1, -1], [0, 0, 1]])]
    training = read([np.zeros((2, 3))], labels)
    np.testing.assert_array_equal(training.counts(), [[3, 2]])
    np.testing.assert_array_equal(training[0][1], labels[0])
