"""RandomWalker spreads seeds, costs, or both, and respects the contents of Scenes."""

import numpy as np
import pytest
from sklearn.base import clone

from hybridseg import PixelClassifier, RandomWalker, Scene, load, save
from hybridseg.datasets import load_photos
from hybridseg.inference import random_walker
from hybridseg.metrics import mean_iou


def noisy_scene(rng, shape=(36, 45), n_labels=3, **known):
    """Bands of color with costs that are wrong at single pixels, and the truth."""
    truth = np.broadcast_to(np.arange(shape[-1]) * n_labels // shape[-1], shape)
    logits = 2.0 * np.eye(n_labels)[truth] + rng.gumbel(size=(*shape, n_labels))
    image = (truth * 70 + rng.integers(0, 30, shape)).astype(np.uint8)
    return Scene.from_logits(image, logits, spatial_ndim=len(shape), **known), truth


def scribbles_on(truth, classes=None):
    """Seeds with one stroke for each label, in the values of the classes."""
    seeds = np.full(truth.shape, -1)
    for label in np.unique(truth):
        seeds[tuple(place[:5] for place in np.nonzero(truth == label))] = label
    return seeds if classes is None else np.where(seeds < 0, -1, np.take(classes, seeds))


@pytest.mark.parametrize("shape", [(30, 42), (6, 18, 21)])
def test_seeds_alone_are_spread_as_the_function_does(rng, shape):
    scene, truth = noisy_scene(rng, shape)
    seeds = scribbles_on(truth, [2, 5, 7])
    alone = Scene(scene.image, seeds=seeds, spatial_ndim=len(shape))
    model = RandomWalker(tol=1e-9)
    (found,) = model.transform([alone])
    expected = random_walker(scene.image, seeds, tol=1e-9)
    assert found.classes.tolist() == [2, 5, 7]
    np.testing.assert_allclose(found.proba, expected.proba, atol=1e-5)
    np.testing.assert_array_equal(model.predict([alone])[0], expected.labels)
    assert model.fit([alone]).classes_.tolist() == [2, 5, 7]
    # constant costs act like no costs
    silent = scene.replace(unary=np.zeros_like(scene.unary), seeds=scribbles_on(truth))
    np.testing.assert_allclose(model.predict_proba([silent])[0], found.proba, atol=1e-5)


def test_classes_may_be_named_where_seeds_lack_some(rng):
    scene, truth = noisy_scene(rng)
    named = Scene(scene.image, seeds=scribbles_on(truth), classes=[0, 1, 2, 9])
    (proba,) = RandomWalker().predict_proba([named])
    assert proba.shape == (*truth.shape, 4)
    assert proba[..., 3].max() < 1e-6


@pytest.mark.parametrize("shape", [(30, 42), (6, 18, 21)])
def test_costs_alone_lose_their_noise(rng, shape):
    scene, truth = noisy_scene(rng, shape)
    before = (scene.unary.argmin(axis=-1) == truth).mean()
    for model in (RandomWalker(), RandomWalker(weight=16.0)):
        assert (model.predict([scene])[0] == truth).mean() > before + 0.1


def test_the_marginals_are_those_of_the_function_with_a_prior(rng):
    scene, truth = noisy_scene(rng, seeds=None)
    seeds = scribbles_on(truth)
    (found,) = RandomWalker(weight=5.0).predict_proba([scene.replace(seeds=seeds)])
    expected = random_walker(scene.image, seeds, prior=scene.proba, weight=5.0)
    np.testing.assert_allclose(found, expected.proba, atol=1e-5)
    np.testing.assert_allclose(found[seeds >= 0], np.eye(3)[seeds[seeds >= 0]], atol=1e-11)


def test_without_weight_the_costs_stay_but_at_seeds(rng):
    scene, truth = noisy_scene(rng)
    (found,) = RandomWalker(weight=0).predict_proba([scene])
    np.testing.assert_allclose(found, scene.proba, atol=1e-6)
    seeds = scribbles_on(2 - truth)
    labels = RandomWalker(weight=0).predict([scene.replace(seeds=seeds)])[0]
    expected = np.where(seeds >= 0, seeds, scene.unary.argmin(axis=-1))
    np.testing.assert_array_equal(labels, expected)


def test_auto_tells_what_it_took_and_leaves_sure_costs_alone(rng):
    scene, truth = noisy_scene(rng)
    (taken,) = RandomWalker().parameters_for([scene])
    assert taken["weight"] > 0
    again = RandomWalker(**taken).predict_proba([scene])[0]
    np.testing.assert_array_equal(RandomWalker().predict_proba([scene])[0], again)
    specks = truth.copy()
    specks[::7, ::7] = (specks[::7, ::7] + 1) % 3
    sure = scene.replace(unary=np.where(np.eye(3, dtype=bool)[specks], 0, 9).astype(np.float32))
    changed = RandomWalker().predict([sure])[0] != specks
    assert changed.mean() < 0.02


def test_invalid_pixels_do_not_matter(rng):
    scene, truth = noisy_scene(rng, seeds=None)
    valid = np.ones(truth.shape, bool)
    valid[5:20, 12:30] = valid[:, :2] = False
    scene = scene.replace(valid=valid, seeds=np.where(rng.random(truth.shape) < 0.02, truth, -1))
    image, unary, seeds = scene.image.copy(), scene.unary.copy(), scene.seeds.copy()
    image[~valid], unary[~valid], seeds[~valid] = 255, np.nan, 1
    other = scene.replace(image=image, unary=unary, seeds=seeds)
    for model in (RandomWalker(), RandomWalker(weight=9.0)):
        one, two = (model.predict([s])[0] for s in (scene, other))
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one == -1, ~valid)
    nothing = scene.replace(valid=np.zeros(truth.shape, bool))
    assert (RandomWalker().predict([nothing])[0] == -1).all()


def test_where_no_seed_can_be_walked_to_nothing_is_known(rng):
    valid = np.ones((9, 12), bool)
    valid[:, 5] = False
    seeds = np.full((9, 12), -1)
    seeds[2, 1], seeds[7, 3] = 0, 1
    scene = Scene(rng.integers(0, 255, (9, 12), dtype=np.uint8), seeds=seeds, valid=valid)
    (proba,) = RandomWalker().predict_proba([scene])
    np.testing.assert_array_equal(proba[:, 6:], 0.5)
    assert abs(proba[:, :5] - 0.5).max() > 0.4


@pytest.mark.parametrize("factor", [1e-6, 25.4, 1e5])
def test_the_unit_of_spacing_does_not_matter_and_its_ratios_do(rng, factor):
    scene, _ = noisy_scene(rng, (24, 31))
    found, scaled, plain = (
        RandomWalker(weight=4.0).predict_proba([scene.replace(spacing=spacing)])[0]
        for spacing in ((0.7, 1.3), (0.7 * factor, 1.3 * factor), None)
    )
    np.testing.assert_array_equal(found, scaled)
    assert abs(found - plain).max() > 1e-3


def test_flips_and_the_order_of_labels_commute(rng):
    scene, _ = noisy_scene(rng, (24, 31))
    model = RandomWalker(weight=8.0, tol=1e-9)
    (found,) = model.predict_proba([scene])
    flipped = scene.replace(image=scene.image[::-1], unary=scene.unary[::-1].copy())
    np.testing.assert_allclose(model.predict_proba([flipped])[0][::-1], found, atol=1e-5)
    turned = scene.replace(unary=np.roll(scene.unary, 1, axis=-1))
    np.testing.assert_allclose(
        np.roll(model.predict_proba([turned])[0], -1, axis=-1), found, atol=1e-5
    )


def test_a_pixel_forest_on_a_photograph_gains():
    photo = load_photos("coins")
    scenes = PixelClassifier(random_state=0).fit(photo.images, photo.scribbles)
    scenes = scenes.transform(photo.images)
    before = mean_iou(photo.truth, [scene.prediction for scene in scenes])
    assert mean_iou(photo.truth, RandomWalker().predict(scenes)) >= before - 0.002
    assert mean_iou(photo.truth, RandomWalker(weight=64.0).predict(scenes)) > before + 0.04


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        (Scene(np.zeros((4, 5))), "is a plain image, or a Scene without costs"),
        (Scene(np.zeros((4, 5)), seeds=np.full((4, 5), -1)), "seeds holds no label >= 0"),
        (Scene(np.zeros((4, 5)), seeds=np.zeros((5, 4), int)), "seeds has shape"),
        (Scene(np.zeros((4, 5)), seeds=np.full((4, 5), 7), classes=[1, 2]), "the label 7"),
    ],
)
def test_bad_scenes_are_named(scene, said):
    with pytest.raises(ValueError, match=said):
        RandomWalker().predict([scene])


@pytest.mark.parametrize(
    "options", [{"weight": -1}, {"weight": 1e9}, {"weight": "most"}, {"tol": 0}, {"beta": -2}]
)
def test_bad_parameters_are_named(rng, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"'{name}' parameter of RandomWalker"):
        RandomWalker(**options).fit([noisy_scene(rng)[0]])


def test_it_is_cloned_and_kept(rng, tmp_path):
    scene, _ = noisy_scene(rng)
    model = RandomWalker(beta=70.0, weight=3.0)
    kept = load(save(clone(model), tmp_path / "walker.hybridseg"))
    assert kept.get_params() == model.get_params()
    np.testing.assert_array_equal(kept.predict([scene])[0], model.predict([scene])[0])
