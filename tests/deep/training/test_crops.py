"""A crop costs as a crop: windows are converted, drawn and read, not pictures."""

import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from hybridseg import Scene
from hybridseg.base import TrainingSet
from hybridseg.datasets import write_labels
from hybridseg.deep.prediction import pictures as pictures_file
from hybridseg.deep.prediction.pictures import Picture, Pictures, is_mapped
from hybridseg.deep.training import crops as crops_file
from hybridseg.deep.training.crops import Crops, draw_pixel
from hybridseg.unary import Augmentation
from tests.deep.subjects import IMAGES, LABELS, quick, same, weights

pytestmark = pytest.mark.usefixtures("one_torch_thread")

N_CROPS = 4


def training_of(X, y, intensity_range="dtype"):
    return TrainingSet.read(X, y, intensity_range, None)


def crops_of(pictures, **changes):
    survey = pictures.survey
    settings = {
        "moments": (survey.mean, survey.std),
        "size": (9, 7, 8)[: pictures.training.spatial_ndim],
        "crops_per_image": N_CROPS,
        "augment": Augmentation(scale=(0.5, 2)),
        "seed": 0,
    }
    return Crops(pictures, **(settings | changes))


def assert_alike(first, second, **tolerance):
    for number in np.random.default_rng(0).permutation(3 * len(first)):
        for one, other in zip(first[number], second[number], strict=True):
            np.testing.assert_allclose(one, other, **tolerance)


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
def test_windows_have_the_colours_of_the_whole_picture(kind, masked):
    convert, intensity_range = KINDS[kind]
    image, labels = convert(IMAGES[0]), LABELS[0]
    valid = None
    if masked:
        valid = np.indices(labels.shape).sum(0) % 5 > 0
        if image.dtype.kind == "f":
            image = np.where(valid[..., None], image, np.nan)
    scene = Scene(image, valid=valid, intensity_range=intensity_range)
    picture = Picture.of(scene, labels, 3)
    expected = scene.filled_colors
    assert masked or np.may_share_memory(picture.stored, image)
    np.testing.assert_allclose(picture.values, expected, atol=1e-3)
    window = slice(3, 12), slice(20, 32)
    np.testing.assert_allclose(picture.window(window), expected[window], atol=1e-3)


@pytest.mark.parametrize("block", [1, 7, 1 << 14])
@pytest.mark.parametrize("shape", [(24, 32), (5, 6, 7), (1, 1)])
def test_a_class_is_counted_in_blocks(monkeypatch, block, shape):
    monkeypatch.setattr(pictures_file, "_BLOCK", block)
    labels = np.random.default_rng(0).integers(-1, 3, shape).astype(np.int8)
    labels.flat[0] = 2
    present = np.unique(labels[labels >= 0])
    picture = Picture(np.zeros((*shape, 1), np.uint8), labels, present)
    for label in present:
        places = np.argwhere(labels == label)
        assert picture.n_pixels(label) == len(places)
        for number, place in enumerate(places):
            assert picture.pixel(label, number) == tuple(place)
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(20):
        drawn = present[other.integers(len(present))]
        places = np.argwhere(labels == drawn)
        assert draw_pixel(picture, one) == tuple(places[other.integers(len(places))])


class Counting:
    """A lazy image that counts how often it is made."""

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
    monkeypatch.setattr(crops_file, "_AHEAD", ahead)
    training = training_of(IMAGES, LABELS)
    plain = crops_of(Pictures(training))
    assert_alike(crops_of(Pictures(training, memory=memory), epochs=3), plain, rtol=0)


def test_pictures_beyond_the_memory_are_read_once_for_many_crops(monkeypatch):
    crops = crops_of(Pictures(training_of(IMAGES, LABELS), memory=0), epochs=3)
    counting = Counting(monkeypatch)
    for number in range(3 * len(crops)):
        crops[number]
    assert counting.count == len(IMAGES)
    assert not any(crops._waiting.values())
    crops[3 * len(crops)]  # beyond the training that was announced
    assert counting.count == len(IMAGES) + 1


def test_what_is_cut_ahead_is_bounded_and_given_once(monkeypatch):
    monkeypatch.setattr(crops_file, "_AHEAD", 3 * 2 * 3000)
    crops = crops_of(Pictures(training_of(IMAGES, LABELS), memory=0), epochs=2, augment=None)
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
    budget = 4 * sum(y.size for y in LABELS)  # of the label maps, not of the pictures
    pictures = Pictures(training, memory=budget // 4)
    assert [pictures.is_held(i) for i in range(3)] == [mapped] * 3
    if mapped:
        assert all(is_mapped(pictures[i].stored) for i in range(3))
    assert_alike(crops_of(pictures), crops_of(Pictures(training_of(IMAGES, LABELS))), rtol=0)
    twin = pickle.loads(pickle.dumps(pictures))
    assert not any(is_mapped(picture.stored) for picture in twin._held.values())
    assert_alike(crops_of(twin), crops_of(pictures), rtol=0)
    counting = Counting(monkeypatch)
    crops = crops_of(pictures)
    for number in range(len(crops)):
        crops[number]
    assert counting.count == (0 if mapped else 3)


def test_a_training_is_the_same_whatever_is_held(tmp_path, monkeypatch):
    paths, maps = saved(tmp_path, "png")
    held = quick(max_epochs=3, validation=0.3).fit(paths, maps)
    monkeypatch.setattr(pictures_file.Pictures.__init__, "__defaults__", (0, None))
    assert same(weights(held), weights(quick(max_epochs=3, validation=0.3).fit(paths, maps)))


def test_volumes_are_drawn_in_windows():
    volume = np.random.default_rng(0).random((12, 14, 10))
    labels = (volume > 0.5).astype(int)
    training = training_of([volume], [labels])
    assert_alike(
        crops_of(Pictures(training, memory=0)), crops_of(Pictures(training)), rtol=0, atol=0
    )


def test_a_window_touches_only_its_part():
    """The rest of the picture may be anything once the survey is made."""
    image = np.full((40, 40, 3), 0.5)
    labels = np.full((40, 40), -1)
    labels[3, 4], labels[4, 5] = 0, 1
    crops = crops_of(Pictures(training_of([image], [labels])), augment=None)
    image[20:] = np.nan
    assert np.isfinite(crops[0][0]).all()
