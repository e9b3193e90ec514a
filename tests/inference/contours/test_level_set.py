"""LevelSet refines costs by contours, and respects the contents of Scenes."""

import numpy as np
import pytest

from hybridseg import LevelSet, PixelClassifier, Scene
from hybridseg.datasets import load_photos
from hybridseg.metrics import mean_iou


def noisy_scene(shape=(40, 50), n_labels=2, seed=0, **known):
    """Two or three bands with costs that are wrong at single pixels, and the truth."""
    rng = np.random.default_rng(seed)
    truth = np.broadcast_to(np.arange(shape[-1]) * n_labels // shape[-1], shape)
    logits = 2.0 * np.eye(n_labels)[truth] + rng.gumbel(size=(*shape, n_labels))
    image = (truth * 90 + rng.integers(0, 20, shape)).astype(np.uint8)
    return Scene.from_logits(image, logits, spatial_ndim=len(shape), **known), truth


@pytest.mark.parametrize("edge_weight", [0.0, 50.0])
@pytest.mark.parametrize(("shape", "n_labels"), [((40, 50), 2), ((48, 60), 3), ((9, 24, 30), 2)])
def test_costs_with_noise_become_regions(shape, n_labels, edge_weight):
    scene, truth = noisy_scene(shape, n_labels)
    before = (scene.unary.argmin(axis=-1) == truth).mean()
    labels = LevelSet(smoothing=2, sigma=2.0, edge_weight=edge_weight).predict([scene])[0]
    assert before < 0.95
    assert (labels == truth).mean() > 0.98


def test_seeds_are_held():
    seeds = np.full((40, 50), -1)
    seeds[10, 5], seeds[20, 45] = 1, 0
    scene, _ = noisy_scene(seeds=seeds)
    labels = LevelSet().predict([scene])[0]
    assert (labels[10, 5], labels[20, 45]) == (1, 0)


def test_more_seeds_of_three_labels_are_held_and_unknown_ones_refused():
    seeds = np.full((40, 51), -1)
    seeds[10, 5], seeds[20, 45], seeds[0, 0] = 2, 0, 1
    scene, _ = noisy_scene((40, 51), 3, seeds=seeds)
    labels = LevelSet().predict([scene])[0]
    assert (labels[seeds >= 0] == seeds[seeds >= 0]).all()
    with pytest.raises(ValueError, match="seeds holds the label 9"):
        LevelSet().predict([scene.replace(seeds=np.full((40, 51), 9))])[0].sum()


def test_values_of_invalid_pixels_do_not_matter():
    valid = np.ones((40, 50), bool)
    valid[5:20, 15:35] = False
    scene, _ = noisy_scene(valid=valid)
    unary, image = scene.unary.copy(), scene.image.copy()
    unary[~valid] = np.random.default_rng(1).normal(0, 100, unary[~valid].shape)
    image[~valid] = 255
    other = scene.replace(unary=unary, image=image)
    labels, others = (LevelSet().predict([s])[0] for s in (scene, other))
    np.testing.assert_array_equal(labels, others)


def test_spacing_says_how_wide_the_average_is():
    scene, _ = noisy_scene((30, 40))
    plain = LevelSet(sigma=2.0, edge_sigma=1.0).predict([scene])[0]
    wide = LevelSet(sigma=6.0, edge_sigma=3.0).predict([scene.replace(spacing=3.0)])[0]
    np.testing.assert_array_equal(plain, wide)


def test_a_pixel_forest_on_a_photograph_of_two_classes_gains():
    photo = load_photos("coins")
    segmenter = PixelClassifier().fit(photo.images, photo.scribbles)
    scenes = segmenter.transform(photo.images)
    before = mean_iou(photo.truth, segmenter.predict(photo.images))
    after = mean_iou(
        photo.truth, LevelSet(smoothing=2, sigma=2.0, edge_weight=50.0).predict(scenes)
    )
    assert after > before + 0.03


# --- method="chan_vese" ---


def by_length(**options):
    return LevelSet(method="chan_vese", **options)


@pytest.mark.parametrize("n_labels", [2, 3])
def test_a_contour_with_a_cost_of_length_drops_noise(n_labels):
    scene, truth = noisy_scene((48, 60), n_labels)
    before = (scene.unary.argmin(axis=-1) == truth).mean()
    for model in (by_length(mu=2.0), by_length()):
        assert (model.predict([scene])[0] == truth).mean() > max(0.98, before + 0.03)


def test_without_a_price_of_length_the_cheapest_label_stays():
    scene, _ = noisy_scene((30, 41), 3)
    expected = scene.unary.argmin(axis=-1)
    np.testing.assert_array_equal(by_length(mu=0).predict([scene])[0], expected)
    np.testing.assert_array_equal(by_length(mu=9, n_iter=0).predict([scene])[0], expected)


def test_chan_vese_reads_the_costs_alone_and_in_any_unit_of_length():
    scene, _ = noisy_scene((30, 41))
    labels = by_length(mu=1.0, sigma=1.0).predict([scene])[0]
    other = scene.replace(image=np.zeros((30, 41)), spacing=0.2)
    np.testing.assert_array_equal(by_length(mu=1.0, sigma=0.2).predict([other])[0], labels)
    plain = by_length(mu=1.0, sigma=1.0, smoothing=3, edge_weight=7.0)
    np.testing.assert_array_equal(plain.predict([scene])[0], labels)


def test_chan_vese_holds_seeds_to_the_border():
    seeds = np.full((40, 51), -1)
    seeds[10, 5], seeds[20, 45], seeds[0, 0], seeds[-1, 20:22] = 2, 0, 1, 0
    scene, _ = noisy_scene((40, 51), 3, seeds=seeds)
    for model in (by_length(mu=5.0), by_length()):
        labels = model.predict([scene])[0]
        assert (labels[seeds >= 0] == seeds[seeds >= 0]).all()


def test_chan_vese_does_not_look_at_invalid_pixels():
    valid = np.ones((40, 50), bool)
    valid[5:20, 15:35] = False
    scene, _ = noisy_scene(valid=valid)
    unary = scene.unary.copy()
    unary[~valid] = np.nan
    labels, others = (by_length().predict([s])[0] for s in (scene, scene.replace(unary=unary)))
    np.testing.assert_array_equal(labels, others)
    np.testing.assert_array_equal(labels == -1, ~valid)


def test_chan_vese_tells_what_auto_took_and_the_same_numbers_give_the_same_labels():
    scene, _ = noisy_scene()
    (taken,) = by_length().parameters_for([scene])
    assert set(taken) == {"n_iter", "sigma", "mu"}
    assert taken["mu"] > 0
    again = by_length(**taken).predict([scene])[0]
    np.testing.assert_array_equal(by_length().predict([scene])[0], again)


@pytest.mark.parametrize(
    ("shape", "known", "said"),
    [((6, 8, 9), {}, "needs images"), ((8, 9), {"spacing": (1, 2)}, "in square pixels")],
)
def test_chan_vese_refuses_values_without_meaning(shape, known, said):
    scene, _ = noisy_scene(shape, **known)
    with pytest.raises(ValueError, match=said):
        by_length().predict([scene])


def test_a_model_saved_before_there_were_methods_competes():
    scene, _ = noisy_scene()
    old = LevelSet()
    del old.method, old.mu
    np.testing.assert_array_equal(old.predict([scene])[0], LevelSet().predict([scene])[0])
    assert old.get_params()["method"] == "region_competition"
