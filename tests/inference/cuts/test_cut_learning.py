"""Graph cuts that learn: features equal energies, cuts equal brute force, held-out images gain."""

import warnings
from itertools import product

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from hybridseg import GraphCut, Scene
from hybridseg.inference.cuts.cut_learning import Marked, what_of
from hybridseg.inference.learned import Examples
from hybridseg.learning import Learner
from hybridseg.metrics import mean_iou
from tests.inference.learning_problems import scenes, volumes
from tests.inference.test_learned import photographs, pixels

BOTH = ("weights", "bias")


def with_regions(X):
    """The same Scenes with superpixels of four by four pixels."""
    found = []
    for each in X:
        rows, columns = np.indices(each.shape) // 4
        found.append(each.replace(regions=rows * 40 + columns))
    return found


def learned(what="weights", settings=None, **options):
    return GraphCut(learn=Learner(what, random_state=0, **(settings or {})), **options)


def model_of(cut, X, y):
    learner = cut.learn
    classes = np.asarray(X[0].classes)
    return cut._learnable(Examples(X, y, classes, learner), learner)


def small(n_labels, on="pixels", shape=(2, 4), seed=0, valid=None):
    """A few pixels or regions, whose labelings can be counted."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (*shape, 3)).astype(np.uint8)
    costs = random.gumbel(size=(*shape, n_labels)).astype(np.float32)
    regions = None
    if on == "regions":
        regions = np.arange(np.prod(shape)).reshape(shape) // 2
    given = Scene(image, unary=costs, classes=np.arange(n_labels), regions=regions, valid=valid)
    return given, random.integers(0, n_labels, shape)


@pytest.mark.parametrize("what", ["weights", BOTH])
@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_theta_times_features_is_the_energy(on, what, rng):
    X, y = scenes(1, shape=(20, 28))
    X = with_regions(X)
    bias = [0.3, -0.2, 0.1]
    model = model_of(learned(what, on=on, unary_weight=0.7, label_bias=bias), X, y)
    example = model.example(0, True)
    marked = Marked.of(example.given, example.truth, np.ones(3))
    point = np.array([1.0, 2.5, *(bias if what == BOTH else [])])
    cut = GraphCut(weight=2.5, on=on, unary_weight=0.7, label_bias=bias)
    energy = cut.energy(X[0])
    for _ in range(5):
        labels = rng.integers(0, 3, energy.shape)
        features = marked.features(labels)[: len(point)]
        assert point @ features == pytest.approx(energy.energy(labels), rel=1e-5)


def brute_force(marked, point):
    """The largest value of a plane at a point, over all labelings."""
    shape, n_labels = marked.problem.shape, marked.problem.costs.shape[-1]
    return max(
        plane[0] + plane[1 : 1 + len(point)] @ point
        for plane in (
            marked.plane(np.array(labels).reshape(shape))
            for labels in product(range(n_labels), repeat=int(np.prod(shape)))
        )
    )


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("on", ["pixels", "regions"])
@pytest.mark.parametrize("seed", range(3))
def test_cuts_find_the_labeling_that_violates_the_margin_most(on, n_labels, seed):
    given, truth = small(n_labels, on, seed=seed)
    truth[0, 1] = -1
    model = model_of(learned(BOTH, on=on), [given], [truth])
    example = model.example(0, False)
    class_weight = np.linspace(0.5, 1.5, n_labels)
    marked = Marked.of(example.given, example.truth, class_weight)
    oracle = model.oracle(example, example.truth, class_weight)
    random = np.random.default_rng(seed)
    for weight in (0.0, 0.4, 2.0):
        point = np.array([random.uniform(0.2, 2), weight, *random.normal(size=n_labels)])
        plane = oracle(point)
        found, best = plane[0] + plane[1:] @ point, brute_force(marked, point)
        if n_labels == 2:
            assert found == pytest.approx(best, abs=1e-5)
        else:
            assert found <= best + 1e-5
            assert found >= best - 0.1 * max(abs(best), 1)


def test_the_plane_of_the_truth_is_zero_and_losses_count_wrong_pixels():
    given, truth = small(3)
    truth[1, 2] = -1
    model = model_of(learned(), [given], [truth])
    example = model.example(0, False)
    marked = Marked.of(example.given, example.truth, np.array([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(marked.plane(marked.truth), 0)
    assert marked.n_known == 7
    wrong = np.where(truth >= 0, (truth + 1) % 3, 0)
    loss = np.array([1.0, 2.0, 4.0])[truth[truth >= 0]].sum() / 7
    assert marked.plane(wrong)[0] == pytest.approx(loss)


def test_a_region_loses_what_its_pixels_lose():
    given, truth = small(2, "regions")
    truth[:] = [[0, 1, 1, 1], [0, 0, -1, -1]]
    model = model_of(learned(on="regions"), [given], [truth])
    example = model.example(0, False)
    marked = Marked.of(example.given, example.truth, np.array([1.0, 3.0]))
    np.testing.assert_array_equal(marked.loss, [[2, 0], [6, 0], [0, 2], [0, 0]])
    np.testing.assert_array_equal(marked.truth[:3], [1, 1, 0])
    assert marked.sizes.ravel().tolist() == [2, 2, 2, 0]


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_sites_without_truth_do_not_count(on, rng):
    """Neither their costs nor their labels change a plane."""
    X, y = scenes(1, shape=(20, 28))
    X = with_regions(X)
    hidden = np.zeros((20, 28), bool)
    hidden[4:12, 8:20] = True
    y = [np.where(hidden, -1, y[0])]
    other = [X[0].replace(unary=np.where(hidden[..., None], 5.0, X[0].unary))]
    planes = []
    for each in (X, other):
        model = model_of(learned(on=on), each, y)
        example = model.example(0, False)
        planes.append(model.oracle(example, example.truth, np.ones(3))(np.array([1.0, 1.5])))
    np.testing.assert_allclose(*planes, rtol=1e-12)
    nothing = model.oracle(example, np.full_like(example.truth, -1), np.ones(3))
    np.testing.assert_array_equal(nothing(np.array([1.0, 1.5])), 0)


@pytest.mark.parametrize("what", ["weights", BOTH])
@pytest.mark.parametrize("on", ["pixels", "regions"])
@pytest.mark.parametrize("valid", [False, True])
def test_the_gate_sees_what_the_refiner_predicts(valid, on, what):
    X, y = scenes(1, shape=(24, 32), valid=valid)
    seeds = np.full((24, 32), -1)
    seeds[3:5, 10:14], seeds[20, 20], seeds[20, 22] = 2, 0, 1  # two seeds in one region
    X = [each.replace(seeds=seeds) for each in with_regions(X)]
    model = model_of(learned(what, on=on), X, y)
    example = model.example(0, True)
    point = np.array([0.5, 0.9, *([0.2, -0.4, 0.1] if what == BOTH else [])])
    for strength in (1.0, 0.3, 0.0):
        weak = model.weakened(point, strength)
        plain = GraphCut(on=on, **model.values(weak)).predict(X)[0]
        inside = np.ones((24, 32), bool) if X[0].valid is None else X[0].valid
        np.testing.assert_array_equal(model.predict(weak, example), plain[inside])
    np.testing.assert_array_equal(model.predict(weak, example), example.costs.argmin(axis=1))


def test_an_image_without_a_region_keeps_its_labels():
    X, y = scenes(3)
    X = with_regions(X)
    X[1] = X[1].replace(regions=np.full(X[1].shape, -1))
    cut = learned(on="regions").fit(X, y)
    model = model_of(learned(on="regions"), X, y)
    example = model.example(1, True)
    expected = example.costs.argmin(axis=1)
    np.testing.assert_array_equal(model.predict(np.array([1.0, 2.0]), example), expected)
    np.testing.assert_array_equal(cut.predict(X[1:2])[0], X[1].prediction)


@pytest.fixture(scope="module")
def fitted():
    return learned(BOTH).fit(*scenes(8))


@pytest.mark.parametrize("what", ["weights", "all", BOTH])
@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_learning_improves_images_that_it_did_not_see(what, on):
    X, y = scenes(6)
    cut = learned(what, on=on).fit(with_regions(X), y)
    test, truth = scenes(6, first=100)
    test = with_regions(test)
    without = GraphCut(weight=0.0, on=on).score(test, truth)
    assert cut.learning_.strength > 0
    assert cut.params_["weight"] > 0
    assert cut.score(test, truth) > without + (0.1 if on == "pixels" else 0.01)
    assert ("label_bias" in cut.params_) == (what == BOTH)


@pytest.mark.parametrize("n_labels", [2, 4])
def test_other_numbers_of_labels(n_labels):
    X, y = scenes(6, n_labels=n_labels)
    cut = learned().fit(X, y)
    test, truth = scenes(4, first=100, n_labels=n_labels)
    alone = mean_iou(truth, [each.prediction for each in test])
    assert cut.score(test, truth) > alone + 0.1


def test_a_bias_corrects_costs_that_prefer_a_label():
    X, y = scenes(6)
    shifted = [each.replace(unary=each.unary - np.float32([0, 0, 1.5])) for each in X]
    cut = learned(BOTH).fit(shifted, y)
    bias = cut.params_["label_bias"]
    assert bias[2] > bias[:2].max() + 0.5
    test, truth = scenes(4, first=100)
    test = [each.replace(unary=each.unary - np.float32([0, 0, 1.5])) for each in test]
    assert cut.score(test, truth) > learned().fit(shifted, y).score(test, truth)


def test_the_parameters_alone_refine_as_the_fitted_model(fitted):
    X, _ = scenes(3, first=100)
    plain = GraphCut(**fitted.params_)
    for ours, theirs in zip(fitted.predict(X), plain.predict(X), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert fitted.parameters_for(X[:1]) == [{"weight": fitted.params_["weight"]}]
    labels = fitted.predict(X[:1])[0]
    assert fitted.energy(X[0]).energy(labels) == plain.energy(X[0]).energy(labels)


def test_no_parameter_of_the_constructor_changes(fitted):
    assert fitted.weight == "auto"
    with pytest.raises(NotFittedError, match="not fitted"):
        clone(fitted).predict(scenes(1)[0])


def test_the_trace_falls_and_ends(fitted):
    assert fitted.learning_.objective == "max_margin"
    assert len(fitted.learning_.losses) == 3
    for losses in fitted.learning_.losses:
        assert 1 < len(losses) < 40
        assert losses[-1] < losses[0]
    assert fitted.learning_.start["weight"] == 0


def test_only_the_ratio_of_weights_matters():
    """Costs in other units lead to the same labels, and the given factor stays."""
    X, y = scenes(6)
    settings = {"alpha": 1e-4}
    first = learned(settings=settings).fit(X, y)
    tenfold = [each.replace(unary=10 * each.unary) for each in X]
    second = learned(settings=settings, unary_weight=0.1).fit(tenfold, y)
    assert second.params_["unary_weight"] == 0.1
    assert second.params_["weight"] == pytest.approx(first.params_["weight"], rel=0.02)


def test_a_large_penalty_keeps_the_given_weight():
    X, y = scenes(4)
    cut = learned(settings={"alpha": 1e6, "cv": None}, weight=3.0).fit(X, y)
    assert cut.params_["weight"] == pytest.approx(3.0, abs=1e-3)
    assert cut.learning_.gate is None


def test_useless_refinement_is_refused():
    """Colors that say nothing, and thin lines: smoothing can only do harm."""
    X, y = [], []
    for seed in range(6):
        random = np.random.default_rng(seed)
        truth = (np.arange(40) % 2)[:, np.newaxis].repeat(40, 1)
        truth = np.where(random.random((40, 40)) < 0.5, truth, truth.T)
        image = random.integers(0, 255, (40, 40)).astype(np.uint8)
        costs = random.gumbel(size=(40, 40, 2)) * 0.7 - 1.5 * np.eye(2)[truth]
        X.append(Scene(image, unary=costs.astype(np.float32), classes=[0, 1]))
        y.append(truth)
    cut = learned(weight=8.0, settings={"alpha": 1e3}).fit(X, y)
    assert cut.learning_.strength == 0
    assert cut.params_["weight"] == 0
    assert learned().fit(X, y).params_["weight"] < 0.3
    for each, found in zip(X, cut.predict(X), strict=True):
        np.testing.assert_array_equal(found, each.prediction)


def test_seeds_do_not_count_as_a_gain():
    """Seeds are right without any weight; the gate compares with labels that obey them."""
    X, y = scenes(3, signal=8.0)
    X = [each.replace(seeds=np.where(np.arange(56) % 3 == 0, truth, -1))
         for each, truth in zip(X, y, strict=True)]  # fmt: skip
    for on in ("pixels", "regions"):
        model = model_of(learned(on=on), with_regions(X), y)
        example = model.example(0, True)
        seeded = np.broadcast_to(np.arange(56) % 3 == 0, (40, 56)).ravel()
        found = example.costs.argmin(axis=1)
        np.testing.assert_array_equal(found[seeded], y[0].ravel()[seeded])


def test_pixels_that_are_not_valid_or_not_labeled_do_not_count():
    X, y = scenes(4, valid=True)
    noisy = [np.where(each.valid, truth, 2 - truth) for each, truth in zip(X, y, strict=True)]
    hidden = [each.replace(unary=np.where(each.valid[..., None], each.unary, 7.0)) for each in X]
    first = learned().fit(X, y).params_
    assert first == learned().fit(hidden, noisy).params_


def test_a_single_image_is_judged_block_by_block():
    X, y = scenes(1, shape=(80, 96))
    cut = learned().fit(X, y)
    assert cut.learning_.gate.n_images == 3
    assert cut.learning_.strength > 0


def test_a_window_keeps_the_contrast_of_its_image():
    X, y = scenes(1, shape=(60, 80))
    model = model_of(learned(settings={"max_pixels": 24 * 32}), X, y)
    part, whole = model.example(0, False), model.example(0, True)
    assert part.given.shape == (24, 32)
    assert whole.given.shape == (60, 80)
    weights = whole.given.edges[0, 1]
    windows = np.lib.stride_tricks.sliding_window_view(weights, (24, 31))
    assert (windows == part.given.edges[0, 1]).all(axis=(2, 3)).any()
    regions = model_of(learned(settings={"max_pixels": 24 * 32}, on="regions"), with_regions(X), y)
    assert regions.example(0, False).given.regions.shape == (60, 80)


@pytest.mark.parametrize("connectivity", [1, 2])
def test_volumes_with_spacing(connectivity):
    X, y = volumes(4)
    cut = learned(connectivity=connectivity).fit(X[:3], y[:3])
    assert cut.learning_.strength > 0
    assert cut.score(X[3:], y[3:]) > mean_iou(y[3:], [X[3].prediction]) + 0.05


def test_class_weights_shift_the_bias():
    X, y = scenes(4, noise=2.5)
    found = [
        learned(BOTH, {"class_weight": weight, "cv": None}).fit(X, y).params_["label_bias"]
        for weight in ([1.0, 1.0, 4.0], [4.0, 1.0, 1.0])
    ]
    assert found[0][2] - found[0][0] < found[1][2] - found[1][0] - 0.5


def test_label_values_may_be_any_and_in_any_order():
    X, y = scenes(4)
    values = np.array([40, 7, 300])
    renamed = [each.replace(classes=values) for each in X]
    cut = learned().fit(renamed, [values[truth] for truth in y])
    expected = learned().fit(X, y)
    assert cut.params_ == expected.params_
    np.testing.assert_array_equal(cut.predict(renamed)[0], values[expected.predict(X)[0]])


def test_costs_of_training_images_warn():
    X, y = photographs(3)
    with pytest.warns(UserWarning, match="the costs are in-sample.*GraphCut learns to trust"):
        learned().fit(pixels().fit_transform(X, y), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crossed = learned(estimator=pixels(), cv=3).fit(X, y)
    test, truth = photographs(3, first=50)
    assert crossed.score(test, truth) > mean_iou(truth, crossed.estimator_.predict(test))


def test_a_search_reaches_the_settings_and_a_second_fit_forgets():
    X, y = scenes(4)
    search = GridSearchCV(learned(), {"learn__alpha": [1e-3, 1e5]}, cv=2)
    best = search.fit(X, y)
    assert best.best_params_ == {"learn__alpha": 1e-3}
    again = best.best_estimator_.set_params(learn=None).fit(X, y)
    assert not hasattr(again, "params_")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("objective", "dice"),
        ("optimizer", "lbfgs"),
        ("batch_size", 5),
        ("learning_rate", 0.5),
        ("n_iter", 7),
    ],
)
def test_settings_for_gradients_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting}={value!r} is for gradients"):
        learned(settings={setting: value}).fit(*scenes(2))


def test_wrong_settings_are_refused():
    X, y = scenes(2)
    with pytest.raises(ValueError, match="alpha=0, but a maximum margin needs a penalty"):
        learned(settings={"alpha": 0.0}).fit(X, y)
    for what in (("widths",), ("compatibility", "weights"), ()):
        with pytest.raises(ValueError, match="which a graph cut can learn"):
            GraphCut(learn=what).fit(X, y)
    with pytest.raises(ValueError, match=r"label_bias has shape \(2,\); expected \(3,\)"):
        learned(BOTH, label_bias=[1.0, 2.0]).fit(X, y)
    with pytest.raises(ValueError, match="on='regions' needs superpixels"):
        learned(on="regions").fit(X, y)
    with pytest.raises(ValueError, match="y holds no known label"):
        learned().fit(X, [np.full_like(each, -1) for each in y])


def test_names_of_parts():
    assert what_of("all") == what_of("weights") == {"weights"}
    assert what_of(["bias"]) == {"weights", "bias"}
