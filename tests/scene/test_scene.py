"""Scenes are lazy, frozen and cheap to pickle; ImageLists have one entry for each image."""

import copy
import dataclasses
import pickle

import imageio.v3 as iio
import numpy as np
import pytest

from hybridseg import ImageList, Scene
from hybridseg.scene.costs import (
    MIN_PROBABILITY,
    RegionCosts,
    costs_from_logits,
    costs_from_proba,
    proba_from_costs,
)
from hybridseg.scene.deferred import Deferred, ValueCache
from hybridseg.scene.sequences import as_scenes


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)


class Counting:
    """A computation that counts how often it is made."""

    def __init__(self):
        self.calls = 0

    def __call__(self, scene):
        self.calls += 1
        return np.full((5, 7, 2), float(self.calls), np.float32)


def test_logits_become_costs(image, rng):
    logits = rng.normal(0, 300, (5, 7, 4))  # large scores must not overflow
    scene = Scene.from_logits(image, logits, classes=[3, 1, 0, 9])
    assert np.allclose(np.exp(-scene.unary.astype(float)).sum(-1), 1, atol=1e-5)
    assert np.array_equal(scene.prediction, np.array([3, 1, 0, 9])[logits.argmax(-1)])


def test_proba_round_trip(image, rng):
    proba = rng.dirichlet(np.ones(3), (5, 7))
    scene = Scene.from_proba(image, proba)
    kept = np.maximum(proba, MIN_PROBABILITY)
    assert np.allclose(scene.proba, kept / kept.sum(-1, keepdims=True), atol=1e-6)


def test_zero_probability_is_a_finite_cost():
    costs = costs_from_proba(np.array([[0.0, 1.0]]))
    assert costs[0, 0] == pytest.approx(-np.log(MIN_PROBABILITY))
    assert costs[0, 1] == 0


def test_costs_and_probabilities_are_inverse(rng):
    logits = rng.normal(size=(4, 5))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert np.allclose(proba_from_costs(costs_from_logits(logits)), p, atol=1e-6)


def test_image_from_path(image, tmp_path):
    iio.imwrite(tmp_path / "a.png", image)
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        scene = Scene(path)
        assert np.array_equal(scene.image, image)
        assert scene.shape == (5, 7)
        assert str(scene.source("image")).endswith("a.png")


def test_a_deferred_value_is_computed_when_read_and_cached(image):
    compute = Counting()
    scene = Scene(image, Deferred(compute, Scene(image)), classes=np.arange(2))
    assert compute.calls == 0
    first = scene.unary
    again = scene.replace(meta={"a": 1})
    assert again.unary is first
    assert compute.calls == 1
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 0


def test_the_cache_stays_within_its_budget(image):
    compute, cache = Counting(), ValueCache(budget=3 * 5 * 7 * 2 * 4)
    values = [Deferred(compute, Scene(image)) for _ in range(5)]
    for deferred in values:
        cache.of_deferred(deferred)
    assert len(cache._held) == 3
    cache.of_deferred(values[-1])
    assert compute.calls == 5
    cache.of_deferred(values[0])
    assert compute.calls == 6


def test_region_costs_spread_over_pixels():
    regions = np.array([[0, 0, 1], [2, 1, 1]], np.int32)
    costs = RegionCosts(regions, np.array([[1, 0], [0, 1], [5, 4]], np.float32))
    scene = Scene(np.zeros((2, 3)), costs, classes=np.array([10, 20]))
    assert scene.unary.shape == (2, 3, 2)
    assert np.array_equal(scene.prediction, [[20, 20, 10], [20, 10, 10]])
    assert scene.region_costs is costs
    assert Scene(np.zeros((2, 3)), costs.pixels()).region_costs is None


def test_frozen(image):
    scene = Scene(image)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        scene.spacing = (1, 1)
    changed = scene.replace(spacing=(2, 1))
    assert changed.spacing == (2, 1)
    assert scene.spacing is None
    assert changed.image is image
    with pytest.raises(TypeError, match="are not fields of a Scene"):
        scene.replace(color=3)


def test_pickle_and_copy(image, tmp_path):
    iio.imwrite(tmp_path / "a.png", image)
    scene = Scene.from_logits(tmp_path / "a.png", np.zeros((5, 7, 2)))
    for again in (pickle.loads(pickle.dumps(scene)), copy.copy(scene), copy.deepcopy(scene)):
        assert np.array_equal(again.image, image)
        assert np.array_equal(again.unary, scene.unary)
    assert len(pickle.dumps(Scene(tmp_path / "a.png"))) < 1000


def test_costs_on_disk(image, tmp_path, rng):
    scene = Scene.from_logits(image, rng.normal(size=(5, 7, 3)))
    stored = scene.store_costs(tmp_path / "costs.npy")
    assert isinstance(stored.source("unary"), str)
    assert np.array_equal(stored.unary, scene.unary)
    assert [p.name for p in tmp_path.iterdir()] == ["costs.npy"]
    with pytest.raises(ValueError, match=r"name of an \.npy file"):
        scene.store_costs(tmp_path / "costs.txt")


def test_costs_on_disk_are_whole_or_absent(image, tmp_path):
    def fail(scene):
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError, match="out of memory"):
        Scene(image, Deferred(fail, Scene(image))).store_costs(tmp_path / "costs.npy")
    assert not list(tmp_path.iterdir())


def test_repr_computes_nothing(image):
    compute = Counting()
    shown = repr(Scene(image, Deferred(compute, Scene(image)), spacing=(1, 2)))
    assert shown == "Scene(image=<uint8 (5, 7, 3)>, unary=<computed when read>, spacing=(1, 2))"
    assert compute.calls == 0


def test_repr_shows_small_arrays_and_the_size_of_others(image):
    regions = np.zeros((5, 7), np.int32)
    scene = Scene(image, RegionCosts(regions, np.zeros((1, 2), np.float32)), classes=[4, 9])
    assert repr(scene) == (
        "Scene(image=<uint8 (5, 7, 3)>, unary=<1 regions>, classes=array([4, 9]), "
        "regions=<int32 (5, 7)>)"
    )


@pytest.mark.parametrize(
    ("shape", "known", "rank"),
    [
        ((4, 5), {}, 2),
        ((4, 5, 3), {}, 2),
        ((6, 4, 5, 3), {}, 3),
        ((6, 4, 5), {"spatial_ndim": 3}, 3),
        ((6, 4, 5), {"unary": np.zeros((6, 4, 5, 2), np.float32)}, 3),
        ((6, 4, 5), {"unary": np.zeros((6, 4, 2), np.float32)}, 2),
    ],
)
def test_rank_is_given_or_that_of_the_costs_or_of_the_shape(shape, known, rank):
    scene = Scene(np.zeros(shape), **known)
    assert scene.rank == rank
    assert scene.shape == shape[:rank]


def test_a_given_rank_comes_before_that_of_the_file(tmp_path):
    iio.imwrite(tmp_path / "a.png", np.zeros((4, 5), np.uint8))
    assert Scene(tmp_path / "a.png").rank == 2
    assert Scene(tmp_path / "a.png", spatial_ndim=3).rank == 3


def test_metadata_of_a_file_stay_with_an_array_of_its_rank(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), np.int16), np.diag([1, 2, 3, 1])), path)
    scene = Scene(path)  # (4, 5, 6): axes z, y, x
    for shape in [(4, 5, 6), (4, 5, 6, 2)]:  # as it is, and with channels
        changed = scene.replace(image=np.zeros(shape))
        assert (changed.spacing, changed.spatial_ndim) == ((3, 2, 1), 3)
        assert changed.meta["affine"].diagonal().tolist() == [1, 2, 3, 1]
    plane = scene.replace(image=np.zeros((5, 6)))
    assert (plane.spacing, plane.spatial_ndim, plane.meta) == (None, None, {})
    stack = Scene(path, spatial_ndim=2).replace(image=np.zeros((4, 5, 6)))
    assert (stack.spacing, stack.spatial_ndim) == (None, 2)


def test_only_a_file_that_states_its_rank_has_metadata_to_keep(image, tmp_path):
    iio.imwrite(tmp_path / "a.png", image)
    for source in (image, tmp_path / "a.png"):
        changed = Scene(source).replace(image=np.zeros((5, 7, 3)))
        assert (changed.spacing, changed.meta) == (None, {})


def test_meta_holds_what_is_given_and_nothing_else(image):
    assert Scene(image).meta == {}
    assert Scene(image, meta={"patient": 4}).meta == {"patient": 4}


def test_nothing_known_yet(image):
    with pytest.raises(ValueError, match="neither labels nor costs"):
        _ = Scene(image).prediction
    with pytest.raises(ValueError, match="no costs"):
        _ = Scene(image).proba
    with pytest.raises(ValueError, match="image is None"):
        Scene()


def test_colors_agree_over_dtypes(image):
    expected = Scene(image).colors
    assert expected.dtype == np.float32
    for other in (image / 255, image.astype(np.uint16) * 257, (image / 255).astype(np.float32)):
        assert np.allclose(Scene(other).colors, expected, atol=1e-3)


def test_intensity_range_of_the_image_and_of_a_window(image):
    raw = image.astype(np.float64) * 10 - 300
    colors = Scene(raw, intensity_range="image").colors
    assert colors.min() == 0
    assert colors.max() == pytest.approx(255)
    window = Scene(raw, intensity_range=(0.0, 1000.0)).colors
    assert np.allclose(window, np.clip(raw, 0, 1000) * 0.255, atol=1e-3)
    assert np.array_equal(
        Scene(np.full((4, 4), 7.0), intensity_range="image").colors, np.zeros((4, 4, 1))
    )


def test_invalid_pixels_are_not_looked_at(image):
    raw = image / 255
    valid = np.ones((5, 7), bool)
    valid[0] = False
    raw[0] = np.nan
    scene = Scene(raw, valid=valid)
    assert np.array_equal(scene.colors[0], np.zeros((7, 3)))
    assert np.isfinite(scene.colors).all()
    stretched = Scene(raw * 7, valid=valid, intensity_range="image").colors
    assert stretched.max() == pytest.approx(255)
    with pytest.raises(ValueError, match=r"valid has shape \(2, 2\)"):
        _ = Scene(raw, valid=valid[:2, :2]).colors


def test_image_list():
    maps = ImageList([np.zeros((2, 3)), np.ones((4, 5)), np.ones((4, 5))])
    assert np.asarray(maps).shape == (3,)
    assert np.asarray(ImageList([np.zeros((2, 2))] * 2)).shape == (2,)
    assert isinstance(maps[1:], ImageList)
    assert np.concatenate([maps, maps[:1]]).shape == (4,)
    assert len(pickle.loads(pickle.dumps(maps))) == 3


def test_scenes_keep_what_they_came_with(image):
    given = Scene(image, intensity_range="image", ignore_label=7)
    made, kept = as_scenes([image, given], intensity_range="dtype", ignore_label=255)
    assert (made.intensity_range, made.ignore_label) == ("dtype", 255)
    assert (kept.intensity_range, kept.ignore_label) == ("image", 7)


def test_stacks_of_gray_images_and_volumes():
    assert len(as_scenes(np.zeros((6, 20, 30)), spatial_ndim=2, n_channels=1)) == 6
    assert len(as_scenes(np.zeros((2, 6, 20, 30)), spatial_ndim=3, n_channels=1)) == 2
    with pytest.raises(ValueError, match="looks like one image"):
        as_scenes(np.zeros((6, 20, 30)), spatial_ndim=3, n_channels=1)


# Probabilities passed as logits


@pytest.mark.parametrize("masked", [False, True])
def test_probabilities_passed_as_logits_warn(rng, masked):
    image, logits = np.zeros((6, 7), np.uint8), rng.normal(0, 3, (6, 7, 4))
    proba = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    known = {"valid": rng.random((6, 7)) < 0.8} if masked else {}
    for given in (proba, proba.astype(np.float16), np.eye(4)[logits.argmax(-1)]):
        with pytest.warns(UserWarning, match="Pass them to Scene.from_proba"):
            Scene.from_logits(image, given, **known)
    with pytest.warns(UserWarning, match=r"after a sigmoid. Pass np.log\(p / \(1 - p\)\)"):
        Scene.from_logits(image, 1 / (1 + np.exp(-4 * logits)), **known)
    for given in (
        logits,
        np.log(proba),
        proba - 0.1,
        proba[..., :1],
        0 * proba,
        rng.random((6, 7, 3)),
    ):
        Scene.from_logits(image, given, **known)


@pytest.mark.parametrize("off", [-0.019, 0.019])
def test_sums_of_probabilities_are_one_within_two_percent(image, off):
    proba = np.full((5, 7, 2), 0.5)
    proba[3, 4, 1] += off
    np.testing.assert_allclose(Scene.from_proba(image, proba).unary, -np.log(proba), rtol=1e-5)
    proba[3, 4, 1] += np.sign(off) * 0.002
    with pytest.raises(ValueError, match="over the last axis .*; expected probabilities that sum"):
        Scene.from_proba(image, proba)


def test_negative_numbers_are_no_probabilities_though_they_sum_to_one(image):
    proba = np.full((5, 7, 2), 0.5)
    proba[1, 2] = -0.1, 1.1
    with pytest.raises(
        ValueError,
        match="proba has the minimum -0.1, and its sums over the last axis range from 1 to 1",
    ):
        Scene.from_proba(image, proba)


def test_probabilities_and_logits_may_be_anything_where_not_valid(image, rng):
    valid = rng.random((5, 7)) < 0.7
    values = rng.dirichlet(np.ones(3), (5, 7))
    values[~valid] = np.nan
    for make in (Scene.from_proba, Scene.from_logits):
        scene = make(image, np.log(values) if make == Scene.from_logits else values, valid=valid)
        np.testing.assert_allclose(scene.proba[valid], values[valid], atol=1e-4)
        np.testing.assert_allclose(scene.proba[~valid], 1 / 3, atol=1e-6)
        np.testing.assert_array_equal(scene.prediction == -1, ~valid)


def test_regions_that_are_given_stay_beside_costs_of_regions(image, rng):
    own = rng.integers(0, 4, (5, 7)).astype(np.int32)
    costs = RegionCosts(rng.integers(0, 2, (5, 7)).astype(np.int32), np.eye(2, dtype=np.float32))
    np.testing.assert_array_equal(Scene(image, costs).regions, costs.regions)
    np.testing.assert_array_equal(Scene(image, costs, regions=own).regions, own)
    assert Scene(image, costs).rank == 2


@pytest.mark.parametrize(
    "classes", [[0, 0], [0, -1], [0.0, 1.0], [0, 1, 2], [[0, 1]], [3]], ids=str
)
def test_classes_are_different_label_values_one_for_each_cost(image, classes):
    costs = np.zeros((5, 7, 2), np.float32)
    with pytest.raises(ValueError, match="classes=.*expected 2 different label values"):
        Scene(image, costs, classes=classes)
    assert Scene(image, costs, classes=np.array([9, 4], np.uint8)).classes.dtype == np.int64


def test_the_wrong_layout_of_scores_is_explained(image, rng):
    scores = rng.normal(size=(3, 5, 7))
    with pytest.raises(ValueError, match=r"np.moveaxis\(logits, 0, -1\)"):
        Scene.from_logits(image, scores, spatial_ndim=2)
    with pytest.raises(ValueError, match=r"batch of one: pass np.moveaxis\(logits\[0\], 0, -1\)"):
        Scene.from_logits(image, scores[np.newaxis])
    with pytest.raises(ValueError, match="logits has shape"):
        Scene.from_logits(image, scores[np.newaxis, :, ::2])


@pytest.mark.parametrize("make", [Scene.from_logits, Scene.from_proba])
def test_scores_of_one_pixel_are_refused_with_and_without_a_mask(image, make):
    for known in ({}, {"valid": np.ones((5, 7), bool)}):
        with pytest.raises(ValueError, match=r"has shape \(2,\); expected"):
            make(image, [0.5, 0.5], **known)


def test_costs_without_classes_or_labels_are_no_prediction(image):
    with pytest.raises(ValueError, match="neither labels nor costs with classes"):
        assert Scene(image, classes=[0, 1]).prediction is None
    hard = Scene(image, labels=np.ones((5, 7), int))
    assert (hard.has_labels, hard.has_costs) == (True, False)
    assert (hard.prediction == 1).all()
