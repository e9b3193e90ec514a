"""Maps that number objects are recognized, so that objects are not learned as classes."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from hybridseg import PixelClassifier, SuperpixelClassifier
from hybridseg.features import SLIC, PixelFeatures
from hybridseg.files.images import read_labels
from hybridseg.scene.instance_maps import warn_of_instance_maps
from hybridseg.scene.training_set import TrainingSet

DATA = Path(os.environ.get("HYBRIDSEG_DATA", "absent"))
HINT = r"y seems to number objects.* classes.*pass \[labels > 0 for labels in y\]"


def nuclei(rng, n_objects, shape=(96, 128)):
    """Separate disks, numbered from 1."""
    found, number = np.zeros(shape, int), 0
    grid = np.stack(np.indices(shape), -1)
    while number < n_objects:
        center = [rng.integers(3, side - 3) for side in shape]
        disk = ((grid - center) ** 2).sum(-1) < rng.integers(4, 12)
        if not ndimage.binary_dilation(disk)[found > 0].any():
            number += 1
            found[disk] = number
    return found


def regions(rng, n_regions, shape=(48, 64)):
    """The number 0..n-1 of the nearest random point for each pixel."""
    points = rng.random((n_regions, len(shape))) * shape
    grid = np.stack(np.indices(shape), -1)[..., None, :]
    return ((grid - points) ** 2).sum(-1).argmin(-1)


def noticed(maps, **options):
    images = [np.zeros(np.shape(labels), np.uint8) for labels in maps]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TrainingSet.read(images, maps, "dtype", options.get("ignore_label"))
    return any("number objects" in str(each.message) for each in caught)


def numbered(rng, counts):
    return [nuclei(rng, n_objects) for n_objects in counts]


def through_all(maps):
    """The maps with numbers that continue from one map to the next."""
    offsets = np.cumsum([0, *(labels.max() for labels in maps[:-1])])
    return [np.where(labels > 0, labels + o, 0) for labels, o in zip(maps, offsets, strict=True)]


def with_gaps(rng, maps):
    """The maps without some numbers, as if small objects were removed."""
    return [np.where(rng.random(labels.max() + 1)[labels] < 0.3, 0, labels) for labels in maps]


OBJECTS = {
    "of two images": lambda rng: numbered(rng, [30, 17]),
    "63 of them": lambda rng: numbered(rng, [20, 63, 41, 5]),
    "of few and many": lambda rng: numbered(rng, [2, 0, 9, 4]),
    "of one image": lambda rng: numbered(rng, [25]),
    "equally many in each image": lambda rng: numbered(rng, [20, 20, 20]),
    "of one image, repeated": lambda rng: numbered(rng, [15]) * 3,
    "counted through": lambda rng: through_all(numbered(rng, [9, 8, 12])),
    "in 16 bits": lambda rng: [m.astype(np.uint16) for m in numbered(rng, [12, 9])],
    "with gaps": lambda rng: with_gaps(rng, numbered(rng, [60, 20, 35, 70])),
    "in volumes": lambda rng: [nuclei(rng, n, (12, 40, 40)) for n in (14, 10)],
    "that touch": lambda rng: [regions(rng, n) + 1 for n in (40, 30)],
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_are_noticed(rng, kind):
    assert noticed(OBJECTS[kind](rng))


def of_things(rng, n_classes, each, n_maps, scattered=3):
    """Maps of regions with ``n_classes`` classes, in which several regions may share a class."""
    maps = []
    for _ in range(n_maps):
        classes = rng.choice(n_classes, each, replace=False)
        maps.append(classes[np.arange(each * scattered) % each][regions(rng, each * scattered)])
    return maps


def of_bodies(rng, n_parts, n_maps, missing=0.0):
    """Parts of a body at nearly the same place in every map; some are absent."""
    points, shape = rng.random((n_parts, 2)) * (48, 64), (48, 64)
    grid, maps = np.stack(np.indices(shape), -1)[..., None, :], []
    for _ in range(n_maps):
        moved = points + rng.normal(0, 1, points.shape)
        found = ((grid - moved) ** 2).sum(-1).argmin(-1)
        gone = rng.random(n_parts) < missing
        maps.append(np.where(gone[found], 0, found))
    return maps


def scribbled(rng, n_classes):
    found = np.full((48, 64), -1)
    for value in range(n_classes):
        found[2 + 3 * value, 5 : 5 + rng.integers(5, 50)] = value
    return found


CLASSES = {
    "as in VOC": lambda rng: of_things(rng, 21, 3, 30, scattered=1),
    "as in VOC, few images": lambda rng: of_things(rng, 21, 2, 6, scattered=1),
    "as in ADE": lambda rng: of_things(rng, 150, 9, 20),
    "as in CamVid": lambda rng: of_things(rng, 11, 11, 12),
    "of one street": lambda rng: of_things(rng, 19, 19, 1),
    "parts of bodies": lambda rng: of_bodies(rng, 40, 5),
    "parts of bodies, some missing": lambda rng: of_bodies(rng, 60, 8, missing=0.1),
    "scribbles": lambda rng: [scribbled(rng, 14)],
    "scribbles on several": lambda rng: [scribbled(rng, n) for n in (14, 9, 12)],
    "few of one piece": lambda rng: [regions(rng, n) for n in (3, 4, 6)],
    "two": lambda rng: [(m > 0) * 1 for m in numbered(rng, [20, 10])],
    "truth or not": lambda rng: [m > 0 for m in numbered(rng, [20, 10])],
}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_are_not_taken_for_objects(rng, kind):
    for _ in range(3):
        assert not noticed(CLASSES[kind](rng))


@pytest.mark.parametrize(
    "build",
    [
        lambda: PixelClassifier(LogisticRegression(), features=PixelFeatures(sigmas=(1.0,))),
        lambda: SuperpixelClassifier(LogisticRegression(), superpixels=SLIC(n_segments=900)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(majority of the labeled|lbfgs failed)")
def test_every_segmenter_warns(rng, build):
    maps = [nuclei(rng, n_objects, (64, 64)) for n_objects in (15, 9)]
    images = [np.where(m[..., None] > 0, 200, 40).astype(np.uint8) * np.ones(3) for m in maps]
    images = [image.astype(np.uint8) for image in images]
    with pytest.warns(UserWarning, match=HINT):
        build().fit(images, maps)
    cured = build().fit(images, [m > 0 for m in maps])
    assert cured.classes_.tolist() == [0, 1]


def dots(values, in_two=()):
    """A map with a pixel of each value on background 0; those ``in_two`` have a second pixel."""
    found = np.zeros((3, 4 * len(values)), int)
    found[1, ::4] = values
    found[1, 2::4] = np.where(np.isin(values, in_two), values, 0)
    return found


def told(maps):
    present = [np.unique(labels[labels >= 0]) for labels in maps]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_instance_maps(present, maps.__getitem__)
    return len(caught) == 1


def count(n, start=1):
    return np.arange(start, start + n)


@pytest.mark.parametrize(
    ("least", "maps_of"),
    [
        # one map, counted from 1
        (12, lambda n: [dots(count(n))]),
        # two maps, counted from 1 to different numbers
        (8, lambda n: [dots(count(n)), dots(count(5))]),
        # maps of equally many values, which lie elsewhere in each
        (12, lambda n: [dots(count(n)), dots(count(n)[::-1]), dots(np.roll(count(n), 5))]),
        # maps whose numbering has gaps, as where small objects were removed
        (20, lambda n: [dots(np.append(count(n - 1), n + 2)), dots([1, 2, 4, 5, 8])]),
        # numbers that go on from map to map
        (20, lambda n: [dots(count(n - 8)), dots(count(8, start=n - 7))]),
    ],
)
def test_fewer_values_may_be_classes(least, maps_of):
    assert told(maps_of(least))
    assert not told(maps_of(least - 1))


def test_values_of_one_map_with_a_gap_are_classes():
    assert told([dots(count(30))])
    assert not told([dots(np.delete(count(30), 6))])


@pytest.mark.parametrize(("each", "objects"), [(1, False), (2, False), (3, True)])
def test_maps_of_one_or_two_numbers_each_hold_classes(each, objects):
    assert told([dots(count(each, start=1 + i * each)) for i in range(24)]) == objects


def test_nine_of_ten_objects_are_connected():
    values = count(20)
    assert told([dots(values, in_two=[4, 9])])
    assert not told([dots(values, in_two=[4, 9, 20])])
    touching = dots(values)
    touching[0, 1::4] = values  # the corners touch
    assert told([touching])


def test_more_than_half_of_the_pixels_are_labeled():
    labels = dots(count(20))
    half = np.concatenate([labels, np.full(labels.shape, -1)])
    assert not told([half])
    half[-1, 0] = 0
    assert told([half])


@pytest.mark.skipif(not (DATA / "dsb2018").is_dir(), reason="HYBRIDSEG_DATA has no nuclei")
def test_real_maps():
    def maps(folder, n_maps=10):
        return [np.asarray(read_labels(p)) for p in sorted((DATA / folder).iterdir())[:n_maps]]

    assert noticed(maps("dsb2018/instances"))
    for folder in ("dsb2018/labels", "camvid/labels", "voc2012_7/labels"):
        for n_maps in (1, 3, 10):
            assert not noticed(maps(folder, n_maps), ignore_label=255)
