"""Crops are cut, converted and read as windows, so that no whole image is processed."""

import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from hybridseg.base import TrainingSet
from hybridseg.datasets import write_labels
from hybridseg.deep.training import crops as crops_file
from hybridseg.deep.training import image_dataset
from hybridseg.deep.training.crops import Crops, crop_shape, cut, draw_pixel
from hybridseg.deep.training.image_dataset import ImageDataset, LabeledImage, is_mapped
from hybridseg.unary import Augmentation
from tests.deep.subjects import IMAGES, LABELS, quick, same, weights

pytestmark = pytest.mark.usefixtures("one_torch_thread")

N_CROPS = 4


def training_of(X, y, intensity_range="dtype"):
    return TrainingSet.read(X, y, intensity_range, None)


def crops_of(dataset, **changes):
    statistics = dataset.statistics
    settings = {
        "moments": (statistics.mean, statistics.std),
        "size": (9, 7, 8)[: dataset.training.spatial_ndim],
        "crops_per_image": N_CROPS,
        "augment": Augmentation(scale=(0.5, 2)),
        "seed": 0,
    }
    return Crops(dataset, **(settings | changes))


def assert_alike(first, second, **tolerance):
    for number in np.random.default_rng(0).permutation(3 * len(first)):
        for one, other in zip(first[number], second[number], strict=True):
            np.testing.assert_allclose(one, other, **tolerance)


class Counting:
    """Counts how often a training set reads an image."""

    def __init__(self, monkeypatch):
        self.count = 0
        inner = TrainingSet.__getitem__

        def counted(training, i):
            self.count += 1
            return inner(training, i)

        monkeypatch.setattr(TrainingSet, "__getitem__", counted)


@pytest.mark.parametrize("memory", [0, 1500, 1 << 30])
@pytest.mark.parametrize("ahead", [1, 3000, 1 << 28])
def test_crops_are_the_same_whatever_is_held(monkeypatch, memory, ahead):
    monkeypatch.setattr(crops_file, "_MAX_AHEAD_BYTES", ahead)
    training = training_of(IMAGES, LABELS)
    plain = crops_of(ImageDataset(training))
    assert_alike(crops_of(ImageDataset(training, memory=memory), epochs=3), plain, rtol=0)


def test_images_beyond_the_memory_are_read_once_for_many_crops(monkeypatch):
    crops = crops_of(ImageDataset(training_of(IMAGES, LABELS), memory=0), epochs=3)
    counting = Counting(monkeypatch)
    for number in range(3 * len(crops)):
        crops[number]
    assert counting.count == len(IMAGES)
    assert not any(crops._waiting.values())
    crops[3 * len(crops)]  # beyond the training that was announced
    assert counting.count == len(IMAGES) + 1


def test_what_is_cut_ahead_is_bounded_and_given_once(monkeypatch):
    monkeypatch.setattr(crops_file, "_MAX_AHEAD_BYTES", 3 * 2 * 3000)
    crops = crops_of(ImageDataset(training_of(IMAGES, LABELS), memory=0), epochs=2, augment=None)
    counting = Counting(monkeypatch)
    order = np.random.default_rng(0).permutation(len(crops))
    for number in [*order, *(order + len(crops))]:
        crops[number]
        waiting = [part for held in crops._waiting.values() for part in held.values()]
        assert sum(values.nbytes + 2000 for values, *_ in waiting) <= 3 * 2 * 3000
        assert not any(values.base is not None for values, *_ in waiting)
    assert counting.count <= 2 * len(crops) / 2 + len(IMAGES)


def saved(tmp_path, kind):
    paths, maps = [], []
    for i, (image, labels) in enumerate(zip(IMAGES, LABELS, strict=True)):
        path = tmp_path / f"{i}.{kind.partition('-')[0]}"
        if path.suffix == ".npy":
            np.save(path, image)
        elif path.suffix == ".png":
            Image.fromarray(image).save(path)
        else:
            compressed = "zlib" if kind == "tif-zlib" else None
            tifffile.imwrite(path, image, photometric="rgb", compression=compressed)
        paths.append(path)
        maps.append(tmp_path / f"{i}-labels.png")
        write_labels(maps[-1], labels)
    return paths, maps


@pytest.mark.parametrize(
    ("kind", "mapped"), [("npy", True), ("tif", True), ("tif-zlib", False), ("png", False)]
)
def test_files_that_can_be_mapped_are_read_in_windows(tmp_path, monkeypatch, kind, mapped):
    training = training_of(*saved(tmp_path, kind))
    budget = 4 * sum(y.size for y in LABELS)  # of the label maps, not of the images
    dataset = ImageDataset(training, memory=budget // 4)
    assert [dataset.is_held(i) for i in range(3)] == [mapped] * 3
    if mapped:
        assert all(is_mapped(dataset[i].stored) for i in range(3))
    assert_alike(crops_of(dataset), crops_of(ImageDataset(training_of(IMAGES, LABELS))), rtol=0)
    twin = pickle.loads(pickle.dumps(dataset))
    assert not any(is_mapped(image.stored) for image in twin._held.values())
    assert_alike(crops_of(twin), crops_of(dataset), rtol=0)
    counting = Counting(monkeypatch)
    crops = crops_of(dataset)
    for number in range(len(crops)):
        crops[number]
    assert counting.count == (0 if mapped else 3)


def test_a_training_is_the_same_whatever_is_held(tmp_path, monkeypatch):
    paths, maps = saved(tmp_path, "png")
    held = quick(max_epochs=3, validation=0.3).fit(paths, maps)
    monkeypatch.setattr(image_dataset.ImageDataset.__init__, "__defaults__", (0, None))
    assert same(weights(held), weights(quick(max_epochs=3, validation=0.3).fit(paths, maps)))


def test_volumes_are_drawn_in_windows():
    volume = np.random.default_rng(0).random((12, 14, 10))
    labels = (volume > 0.5).astype(int)
    training = training_of([volume], [labels])
    assert_alike(
        crops_of(ImageDataset(training, memory=0)), crops_of(ImageDataset(training)), rtol=0, atol=0
    )


def test_a_window_touches_only_its_part():
    """After the statistics are computed, pixels outside the window are not read."""
    image = np.full((40, 40, 3), 0.5)
    labels = np.full((40, 40), -1)
    labels[3, 4], labels[4, 5] = 0, 1
    crops = crops_of(ImageDataset(training_of([image], [labels])), augment=None)
    image[20:] = np.nan
    assert np.isfinite(crops[0][0]).all()


def test_shapes_of_crops():
    assert crop_shape(64, (40, 50)) == (50, 50)
    assert crop_shape(64, (20, 80, 70)) == (20, 64, 64)
    assert crop_shape((32, 99), (40, 50)) == (32, 50)


def crops_from(images, labels, augment, size=(12, 12), seed=0, moments=None):
    dataset = ImageDataset(TrainingSet.read(images, labels, "dtype", None))
    moments = moments or (dataset.statistics.mean, dataset.statistics.std)
    return Crops(dataset, moments=moments, size=size, crops_per_image=2, augment=augment, seed=seed)


def test_crops_are_standardized_as_the_network_expects():
    own = crops_from(IMAGES, LABELS, Augmentation(contrast=0.3, brightness=0.3))
    mean, std = own.moments
    expected = np.full(3, 100, np.float32), np.full(3, 10, np.float32)
    other = crops_from(IMAGES, LABELS, own.augment, moments=expected)
    for number in range(4):
        colors = np.moveaxis(own[number][0], 0, -1) * std + mean
        np.testing.assert_allclose(
            np.moveaxis(other[number][0], 0, -1), (colors - 100) / 10, rtol=0, atol=1e-3
        )


@pytest.mark.filterwarnings("ignore:y seems to number objects")  # every pixel is its own class
def test_scale_shows_more_or_less():
    labels = [np.arange(40 * 40).reshape(40, 40)]
    images = [np.zeros((40, 40, 3), np.uint8)]
    for scale, extent in ((0.5, 24), (1.0, 12), (2.0, 6)):
        crops = crops_from(images, labels, Augmentation("none", scale=(scale, scale)))
        found = crops[0][1]
        rows = np.unique(found[found >= 0] // 40)
        assert rows.max() - rows.min() + 1 >= extent - 2
        assert rows.max() - rows.min() + 1 <= extent


def test_a_crop_depends_on_its_number_alone():
    first, second = (crops_from(IMAGES, LABELS, Augmentation(scale=(0.5, 2))) for _ in range(2))
    for number in (5, 0, 3):
        for one, other in zip(first[number], second[number], strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0][0], first[len(first)][0])


def positions(shape):
    """An image whose channels are the coordinates of its pixels."""
    return np.stack(np.indices(shape), axis=-1).astype(np.float32)


def labeled_image(labels):
    present = np.unique(labels[labels >= 0])
    return LabeledImage(positions(labels.shape), labels, present)


@pytest.mark.parametrize(
    "shape", [(20, 31), (3, 31), (20, 2), (8, 8), (1, 1), (5, 20, 3), (1, 1, 1)]
)
def test_crops_hold_a_labeled_pixel_and_keep_colors_with_labels(shape):
    rng = np.random.default_rng(0)
    at = shape[0] // 2, *(side - 1 for side in shape[1:])
    labels = np.full(shape, -1)
    labels[at] = 4
    size = (8, 6, 7)[: len(shape)]
    for _ in range(20):
        colors, cropped = cut(labeled_image(labels), size, rng)
        assert (colors.shape, cropped.shape) == ((*size, len(shape)), size)
        assert np.count_nonzero(cropped == 4) == 1
        np.testing.assert_array_equal(colors[cropped == 4][0], at)


def test_crops_are_drawn_evenly_over_the_classes():
    rng = np.random.default_rng(0)
    labels = np.full((20, 30), 2)
    labels[3, 4], labels[10:] = 5, -1
    drawn = [labels[draw_pixel(labeled_image(labels), rng)] for _ in range(400)]
    assert set(drawn) == {2, 5}
    assert abs(drawn.count(5) - 200) < 60


def test_crops_reach_every_corner():
    rng = np.random.default_rng(0)
    shown = labeled_image(np.zeros((4, 5), int))
    starts = {tuple(cut(shown, (2, 2), rng)[0][0, 0].astype(int)) for _ in range(300)}
    assert starts == {(row, column) for row in range(3) for column in range(4)}
