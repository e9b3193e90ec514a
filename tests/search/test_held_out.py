"""Folds, the order of images, and held-out predictions."""

import numpy as np
import pytest

from hybridseg import CrossFit, Scene
from hybridseg.base import TrainingSet
from hybridseg.metrics import confusion_table
from hybridseg.search.clock import Clock, OutOfTimeError, Pace
from hybridseg.search.held_out import Labeled, computed, hold_out, ignored_labels
from tests.search.stubs import HANDS, Known, data
from tests.subjects import halves, pixels, superpixels


def labeled(images, labels, cv=2, groups=None, ignored=(), seed=0):
    training = TrainingSet.read(images, labels, None, None, n_least=1)
    return Labeled.of(training, groups, cv, ignored, np.random.default_rng(seed))


def held(segmenter, given, n_images=None, clock=None, **options):
    n_images = len(given) if n_images is None else n_images
    return hold_out(segmenter, given, n_images, Pace(), clock or Clock(1e9), **options)


def test_first_images_have_all_classes_twice():
    images, labels = data(20)
    labels = [np.zeros_like(found) for found in labels]
    for i in (4, 11, 17):
        labels[i][0] = 1
    given = labeled(images, labels)
    assert sum(i in (4, 11, 17) for i in given.order[:4]) >= 2
    assert sorted(given.order) == list(range(20))


def test_images_without_labels_are_left_out():
    images, labels = data(5)
    labels[2][:] = -1
    assert sorted(labeled(images, labels).order) == [0, 1, 3, 4]


@pytest.mark.parametrize("n_images", [4, 7, 12])
def test_groups_are_never_on_both_sides(n_images):
    groups = np.repeat([3, 1, 2, 8], 3)
    given = labeled(*data(12), cv=3, groups=groups)
    tested = []
    for fold in given.folds(n_images):
        assert not set(groups[list(fold.train)]) & set(groups[list(fold.test)])
        tested += fold.test
    assert sorted(tested) == sorted(given.order[:n_images])


def test_groups_are_checked():
    images, labels = data(4)
    with pytest.raises(ValueError, match=r"groups has shape \(3,\); expected one group for each"):
        labeled(images, labels, groups=[0, 1, 2])
    with pytest.raises(ValueError, match="groups has one group for 4 labeled images"):
        labeled(images, labels, groups=[5] * 4)


def test_no_model_sees_the_images_that_it_is_judged_by(hands):
    images, labels = data(6)
    given = labeled(images, labels, cv=3)
    for fold in given.folds(6):
        assert not set(fold.train) & set(fold.test)
    found = held(Known(), given)
    assert found.positions == tuple(given.order)
    assert all(scene.meta["out_of_fold"] for scene in found.scenes)


@pytest.mark.parametrize("make", [pixels, superpixels])
def test_several_images_equal_cross_fit(make):
    images, labels = halves(((24, 32), (30, 22), (20, 26), (26, 20), (22, 22)))
    given = labeled(images, labels, cv=2)
    found = held(make(), given)
    order = given.order
    crossed = CrossFit(make(), cv=2).fit_transform(
        [images[i] for i in order], [labels[i] for i in order]
    )
    for scene, other in zip(found.scenes, crossed, strict=True):
        assert np.array_equal(scene.unary, other.unary)
    expected = confusion_table([labels[i] for i in order], [s.prediction for s in crossed])
    assert np.array_equal(found.counts.sum(axis=0), expected.counts)
    assert found.counts.shape == (5, 3, 4)


@pytest.mark.parametrize("make", [pixels, superpixels])
def test_blocks_of_one_image_equal_cross_fit(make):
    images, labels = halves(((36, 40),))
    labels[0][:4] = -1
    given = labeled(images, labels, cv=3)
    found = held(make(), given)
    crossed = CrossFit(make(), cv=3).fit_transform(images, labels)
    assert np.array_equal(found.scenes[0].unary, crossed[0].unary)
    expected = confusion_table(labels, [crossed[0].prediction])
    assert np.array_equal(found.counts.sum(axis=0), expected.counts)
    assert len(found.counts) == 36  # six blocks along each axis


def test_fewer_than_five_images_are_cut_into_blocks():
    images, labels = data(4)
    counts = held(Known(0.2), labeled(images, labels, cv=2)).counts
    assert len(counts) == 4 * 16
    assert counts.sum() == sum(found.size for found in labels)


def test_invalid_and_ignored_pixels_do_not_count(hands):
    images, labels = data(6)
    for found in labels:
        found[0] = 255
    valid = np.ones(labels[0].shape, bool)
    valid[:, -2:] = False
    scenes = [Scene(image, valid=valid) for image in images]
    given = labeled(scenes, labels, ignored=(255,))
    assert given.classes.tolist() == [0, 1]
    counts = held(Known(ignore_label=255), given).counts
    assert counts.sum() == 6 * 11 * 14
    assert counts[:, [0, 1], [0, 1]].sum() == counts.sum()


def test_a_class_that_a_fold_lacks():
    images, labels = halves(((24, 32), (30, 22), (20, 26)))
    for found in labels[1:]:
        found[found == 2] = -1
    found = held(pixels(), labeled(images, labels, cv=3))
    assert found.scenes[0].unary.shape[-1] == 3


def test_ignored_labels_of_inner_segmenters():
    assert set(ignored_labels(CrossFit(pixels(ignore_label=9)))) == {9}
    assert not set(ignored_labels(pixels()))


def test_errors_name_the_position_of_an_image():
    images, labels = data(6)
    images[4] = np.stack([images[4]] * 2, axis=-1)
    given = labeled(images, labels)
    place = given.order.tolist().index(4)
    given.check(0, place)
    with pytest.raises(ValueError, match=r"X\[4\] has 2 channels but X\[0\] has 1"):
        given.check(place, 6)


def test_deadline(hands):
    given = labeled(*data(6), cv=2)
    clock = Clock(100.0, HANDS)
    with pytest.raises(OutOfTimeError, match=r"^$"):
        held(Known(fit_cost=5.0), given, clock=clock, deadline=10.0)
    assert clock.passed == pytest.approx(15.0)  # one fit of three images, then it stopped


def test_pace(hands):
    pace = Pace()
    given = labeled(*data(6), cv=2)
    hold_out(Known(fit_cost=2.0, cost=0.25), given, 6, pace, Clock(1e9, HANDS))
    assert pace.fits == [(3, 1.0, pytest.approx(6.0))]
    assert pace.per_image == pytest.approx(0.25)


def test_costs_are_computed_while_there_is_time(hands):
    given = labeled(*data(6), cv=2)
    clock = Clock(1e9, HANDS)
    found = held(Known(cost=1.0), given, clock=clock)
    some = computed(found, clock, clock.passed + 1.5)
    assert some.positions == found.positions[: len(some.scenes)]
    assert len(some.counts) == len(some.scenes)
    assert all(isinstance(scene.source("unary"), np.ndarray) for scene in some.scenes)
    assert computed(found, clock, clock.passed - 1) is None
