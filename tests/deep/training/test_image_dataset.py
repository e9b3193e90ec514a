"""Labeled images in memory and read in windows, and the statistics of a dataset."""

import numpy as np
import pytest

from hybridseg import Scene
from hybridseg.base import TrainingSet
from hybridseg.deep.training import image_dataset
from hybridseg.deep.training.crops import draw_pixel
from hybridseg.deep.training.image_dataset import ImageDataset, LabeledImage
from tests.deep.subjects import IMAGES, LABELS

pytestmark = pytest.mark.usefixtures("one_torch_thread")

KINDS = {
    "uint16": (lambda image: image.astype(np.uint16) * 257, "dtype"),
    "int16": (lambda image: image.astype(np.int16) * 128, "image"),
    "float": (lambda image: image / 255.0, "dtype"),
    "float32": (lambda image: image.astype(np.float32) * 3 - 100, "image"),
    "window": (lambda image: image.astype(np.float32) * 3 - 100, (-50.0, 500.0)),
    "uint8": (lambda image: image, "image"),
    "constant": (lambda image: np.full(image.shape, 7.5), "image"),
    "bool": (lambda image: image > 100, "dtype"),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("masked", [False, True])
def test_windows_have_the_colors_of_the_whole_image(kind, masked):
    convert, intensity_range = KINDS[kind]
    image, labels = convert(IMAGES[0]), LABELS[0]
    valid = None
    if masked:
        valid = np.indices(labels.shape).sum(0) % 5 > 0
        if image.dtype.kind == "f":
            image = np.where(valid[..., None], image, np.nan)
    scene = Scene(image, valid=valid, intensity_range=intensity_range)
    labeled = LabeledImage.of(scene, labels, 3)
    expected = scene.filled_colors
    assert masked or np.may_share_memory(labeled.stored, image)
    np.testing.assert_allclose(labeled.values, expected, atol=1e-3)
    window = slice(3, 12), slice(20, 32)
    np.testing.assert_allclose(labeled.window(window), expected[window], atol=1e-3)


@pytest.mark.parametrize("block", [1, 7, 1 << 14])
@pytest.mark.parametrize("shape", [(24, 32), (5, 6, 7), (1, 1)])
def test_a_class_is_counted_in_blocks(monkeypatch, block, shape):
    monkeypatch.setattr(image_dataset, "_BLOCK", block)
    labels = np.random.default_rng(0).integers(-1, 3, shape).astype(np.int8)
    labels.flat[0] = 2
    present = np.unique(labels[labels >= 0])
    labeled = LabeledImage(np.zeros((*shape, 1), np.uint8), labels, present)
    for label in present:
        places = np.argwhere(labels == label)
        assert labeled.n_pixels(label) == len(places)
        for number, place in enumerate(places):
            assert labeled.pixel(label, number) == tuple(place)
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(20):
        drawn = present[other.integers(len(present))]
        places = np.argwhere(labels == drawn)
        assert draw_pixel(labeled, one) == tuple(places[other.integers(len(places))])


def test_median_frequency_counts_the_images_that_hold_a_class():
    labels = [np.zeros((4, 5), int), np.zeros((4, 5), int)]
    labels[0][0, :4] = 1
    labels[1][:2], labels[1][3] = 2, -1
    images = [np.zeros((4, 5, 3), np.uint8)] * 2
    statistics = ImageDataset(TrainingSet.read(images, labels, "dtype", None)).statistics
    np.testing.assert_array_equal(statistics.counts, [21, 4, 10])
    np.testing.assert_array_equal(statistics.around, [35, 20, 15])
    np.testing.assert_array_equal(statistics.images, [2, 1, 1])


def test_images_beyond_the_memory_are_read_again():
    training = TrainingSet.read(IMAGES, LABELS, "dtype", None)
    held, unheld = ImageDataset(training), ImageDataset(training, memory=0)
    for one, other in zip(list(held), list(unheld), strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert held.statistics.counts.tolist() == unheld.statistics.counts.tolist()
