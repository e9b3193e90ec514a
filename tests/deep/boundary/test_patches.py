"""Patches: what they hold, where they are drawn, and how they turn."""

import numpy as np
import pytest
import torch

from hybridseg.deep.boundary.band import Surroundings
from hybridseg.deep.boundary.patches import Batch, draw_patches, n_affordable
from tests.deep.boundary.shifted import shifted

SIDE, REACH = 8, 3


def drawn(n=40, seed=0, **options):
    scene, truth = shifted(3, n_labels=3, **options)
    around = Surroundings.of(scene, 3.0)
    random = np.random.default_rng(seed)
    return around, truth, draw_patches(around, truth, n, side=SIDE, reach=REACH, random=random)


@pytest.mark.parametrize("shape", [(40, 48), (5, 60), (12, 14, 10)])
def test_patches_are_windows_of_the_band(shape):
    around, truth, patches = drawn(shape=shape)
    known = np.where(around.band, truth, -1)
    usable = np.take_along_axis(around.candidates, truth[..., None], axis=-1)[..., 0]
    known[~usable] = -1
    padded = np.pad(known, [(0, max(0, SIDE - n)) for n in shape], constant_values=-1)
    views = np.lib.stride_tricks.sliding_window_view(padded, (SIDE,) * len(shape))
    for patch in patches:
        assert patch.truth.shape == (SIDE,) * len(shape)
        assert patch.log_proba.shape == (3,) + (SIDE + 2 * REACH,) * len(shape)
        assert (patch.truth >= 0).any()
        inner = tuple(range(-len(shape), 0))
        assert (views == patch.truth).all(axis=inner).any()
        inside = patch.truth >= 0
        own = np.take_along_axis(patch.candidates, np.maximum(patch.truth, 0)[None], axis=0)[0]
        assert own[inside].all()


def test_rare_labels_are_drawn_as_often_as_others():
    scene, truth = shifted(3, n_labels=2, shape=(60, 80))
    truth[:] = 0
    around = Surroundings.of(scene, 3.0)
    rows, columns = np.nonzero(around.band & around.candidates.all(axis=-1))
    truth[rows[0], columns[0]] = 1
    random = np.random.default_rng(0)
    patches = draw_patches(around, truth, 100, side=4, reach=REACH, random=random)
    share = np.mean([(patch.truth == 1).any() for patch in patches])
    assert 0.35 < share < 0.65


def test_no_known_pixel_gives_no_patch():
    scene, truth = shifted(3)
    around = Surroundings.of(scene, 3.0)
    random = np.random.default_rng(0)
    unknown = np.full(truth.shape, -1)
    assert draw_patches(around, unknown, 5, side=SIDE, reach=REACH, random=random) == []


def test_turning_twice_changes_nothing():
    patch = drawn(1)[2][0]
    for flips, swap in (((True, False), False), ((True, True), True)):
        once = patch.turned(flips, swap)
        twice = once.turned(flips, swap)
        assert not np.array_equal(once.colors, patch.colors)
        for name, value in vars(patch).items():
            np.testing.assert_array_equal(getattr(twice, name), value)


def test_batches_stack_patches():
    patches = drawn(6)[2]
    batch = Batch.of(patches, torch.device("cpu"))
    for i, patch in enumerate(patches):
        inputs = patch.log_proba, patch.nearness, patch.colors
        for found, expected in zip(batch.inputs, inputs, strict=True):
            np.testing.assert_array_equal(found[i].numpy(), expected)
        middle = patch.log_proba[:, REACH:-REACH, REACH:-REACH]
        np.testing.assert_array_equal(batch.start[i].numpy(), middle)
        np.testing.assert_array_equal(batch.candidates[i].numpy(), patch.candidates)
        np.testing.assert_array_equal(batch.truth[i].numpy(), patch.truth)


def test_memory_bounds_the_number_of_patches():
    around = drawn(1)[0]
    assert n_affordable(50, around, SIDE, REACH) == 50
    most = n_affordable(10**9, around, SIDE, REACH)
    each = 4 * 7 * (SIDE + 2 * REACH) ** 2
    assert most * each <= 2**30 < (most + 1) * each
