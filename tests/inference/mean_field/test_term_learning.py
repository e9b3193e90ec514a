"""CRFs of edges and kernels that learn: gradients, what is refused, and held-out images."""

import numpy as np
import pytest
from sklearn.base import clone

from hybridseg import GridCRF, Scene
from hybridseg.inference.learned import Examples
from hybridseg.learning import Learner
from hybridseg.learning.learner import _Work
from hybridseg.metrics import mean_iou
from hybridseg.pairwise import BilateralKernel
from tests.inference.learning_problems import scene, scenes

ALL = ("weights", "compatibility", "bias")
SETTINGS = {"max_iter": 12, "random_state": 0}


def grid(what="all", **options):
    settings = SETTINGS | options.pop("settings", {})
    return GridCRF(learn=Learner(what, **settings), **options)


def work_of(crf, X, y, n_labels=3):
    learner = crf.learn
    examples = Examples(X, y, np.arange(n_labels), learner)
    model = crf._learnable(examples, learner)
    return _Work(learner, model, len(X), n_labels), model


def with_regions(scenes, side=4, outside=False):
    """Scenes with square regions; with ``outside``, some columns belong to none."""
    found = []
    for each in scenes:
        rows, columns = (np.arange(n) // side for n in each.shape)
        regions = rows[:, None] * (columns.max() + 1) + columns
        if outside:
            regions[:, -5:] = -1
        found.append(each.replace(regions=regions))
    return found


def check_gradient(crf, X, y, rng, n_labels=3, size=None):
    """Near small weights; with large ones, labels tip over and the loss is nearly a step."""
    work, model = work_of(crf, X, y, n_labels)
    point = model.vector(model.first)
    point += rng.standard_normal(len(point)) * 0.2
    gradient = work.evaluate(point, work.everything)[1]
    assert size is None or len(point) == size
    assert (np.abs(gradient) > 1e-4).any()
    for k in range(len(point)):
        step = 5e-3 * (np.arange(len(point)) == k)
        sides = [work.evaluate(point + s * step, work.everything)[0] for s in (1, -1)]
        assert gradient[k] == pytest.approx((sides[0] - sides[1]) / 1e-2, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("objective", ["iou", "log_likelihood"])
@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("connectivity", [1, 2])
def test_gradient_on_pixels(connectivity, valid, objective, rng):
    X, y = scenes(2, shape=(24, 30), valid=valid)
    crf = grid(ALL, weight=0.6, connectivity=connectivity, settings={"objective": objective})
    check_gradient(crf, X, y, rng, size=1 + 1 + 3 + 3 + 3)


@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("outside", [False, True])
def test_gradient_on_regions(outside, valid, rng):
    X, y = scenes(2, shape=(24, 30), valid=valid)
    kernels = (BilateralKernel(1.0, 10.0, 30.0),)
    crf = grid(ALL, weight=0.6, on="regions", kernels=kernels)
    check_gradient(crf, with_regions(X, outside=outside), y, rng, size=1 + 2 + 3 + 3 + 3)


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_learning_improves_images_that_it_did_not_see(on):
    X, y = scenes(6)
    T, truth = scenes(4, first=100)
    known = {"on": on}
    if on == "regions":
        X, T = with_regions(X, side=2), with_regions(T, side=2)
        known["kernels"] = (BilateralKernel(0.5, 10.0, 30.0),)
    model = grid(**known).fit(X, y)
    alone = mean_iou(truth, GridCRF(weight=0.0, on=on).predict(T))
    assert model.learning_.strength > 0
    assert model.score(T, truth) > alone + 0.05
    plain = GridCRF(**(known | model.params_))
    for ours, theirs in zip(model.transform(T), plain.transform(T), strict=True):
        np.testing.assert_array_equal(ours.unary, theirs.unary)
    assert model.parameters_for(T[:1])[0] == {"weight": model.params_["weight"]}
    assert model.energy(T[0]).terms[0] == plain.energy(T[0]).terms[0]
    assert model.weight == "auto"
    assert not hasattr(clone(model), "params_")


def test_useless_refinement_is_refused():
    """Colors that say nothing, and thin lines: smoothing can only do harm."""
    X, y = [], []
    for seed in range(4):
        random = np.random.default_rng(seed)
        truth = (np.arange(40) % 2)[:, np.newaxis].repeat(40, 1)
        image = random.integers(0, 255, (40, 40)).astype(np.uint8)
        costs = random.gumbel(size=(40, 40, 2)) * 0.7 - 1.5 * np.eye(2)[truth]
        X.append(Scene(image, unary=costs.astype(np.float32), classes=[0, 1]))
        y.append(truth[:, ::-1])
    model = grid("weights").fit(X, y)
    assert model.params_["weight"] < 1e-2 or model.learning_.strength == 0
    for each, found in zip(X, model.predict(X), strict=True):
        assert (found != each.prediction).mean() < 0.01


def test_what_is_refused_on_regions_are_costs_of_regions():
    """Regions across the label's lines: the gate compares with sums of costs over regions."""
    X, y = scenes(4, noise=0.3, signal=3.0)
    X = with_regions(X, side=8)
    model = grid("weights", on="regions").fit(X, y)
    for position in range(4):
        example = work_of(model, X, y)[1].example(position, True)
        labels = GridCRF(weight=0.0, on="regions").predict(X)[position]
        np.testing.assert_array_equal(example.costs.argmin(axis=1), labels.ravel())


def test_two_labels_and_volumes(rng):
    random = np.random.default_rng(0)
    X, y = [], []
    for _ in range(4):
        truth = random.integers(0, 2, (2, 3, 3)).repeat(5, 0).repeat(5, 1).repeat(5, 2)
        volume = truth * 90 + random.integers(0, 40, truth.shape)
        costs = 1.5 * random.gumbel(size=(*truth.shape, 2)) - np.eye(2)[truth]
        given = {"unary": costs.astype(np.float32), "spacing": (2.0, 1.0, 1.0)}
        X.append(Scene(volume.astype(np.uint8), classes=[0, 1], **given))
        y.append(truth)
    model = grid(connectivity=2).fit(X[:3], y[:3])
    assert model.learning_.strength > 0
    assert model.score(X[3:], y[3:]) > mean_iou(y[3:], [X[3].prediction])
    check_gradient(grid(ALL, weight=0.6), X[:1], y[:1], rng, n_labels=2, size=1 + 1 + 2 + 1 + 2)


def test_a_window_has_the_weights_of_the_whole_image():
    """The contrast that is "auto" is that of the image, in windows as well."""
    each, truth = scene(0, shape=(60, 70))
    crf = grid("weights", connectivity=2, settings={"max_pixels": 30 * 30})
    _, model = work_of(crf, [each], [truth])
    example = model.example(0, False)
    part = example.given.energy
    assert part.shape[0] < 40
    whole = GridCRF(weight=1.0, connectivity=2).energy(each)
    costs = whole.unary
    windows = np.lib.stride_tricks.sliding_window_view(costs, part.shape, axis=(0, 1))
    (place,) = np.argwhere((windows == np.moveaxis(part.unary, -1, 0)).all(axis=(2, 3, 4)))
    for own, every in zip(part.edges, whole.edges, strict=True):
        assert own.offset == every.offset
        # The array begins where p begins, which is right of the window for steps to the left.
        cut = tuple(slice(a, a + n) for a, n in zip(place, own.weight.shape, strict=True))
        np.testing.assert_array_equal(own.weight, every.weight[cut])
    model = crf.fit([each], [truth])
    assert model.learning_.strength > 0


def test_images_without_any_region_keep_their_costs():
    X, y = scenes(3)
    X = with_regions(X)
    X[1] = X[1].replace(regions=np.full(X[1].shape, -1))
    crf = grid("weights", on="regions")
    _, model = work_of(crf, X, y)
    example = model.example(1, False)
    recorded = model.record(model.vector(model.first), example)
    np.testing.assert_allclose(recorded.marginals, X[1].proba.reshape(-1, 3), atol=1e-6)
    assert not recorded.gradient(np.ones_like(recorded.marginals)).any()
    assert crf.fit(X, y).predict(X[1:2])[0].shape == X[1].shape


def test_widths_are_not_learned():
    with pytest.raises(ValueError, match=r"some of \['weights', 'compatibility', 'bias'\]"):
        grid(("widths",)).fit(*scenes(2))
