"""A blend of segmenters: given, equal and learned weights, and the choice between them."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from hybridseg import Blend, DenseCRF, GraphCut, PixelClassifier, Scene
from hybridseg.features import PixelFeatures
from hybridseg.metrics import mean_iou
from hybridseg.scene.costs import RegionCosts
from hybridseg.unary.opinion_pool import MAX_COST, fit_pool
from tests.subjects import halves, members, pixels, superpixels
from tests.unary.planes import Planes, planes_problem


def pair(**options):
    """A good and a poor segmenter of images of two sets of planes."""
    return [("good", Planes(0, **options)), ("poor", Planes(3, **options))]


def logs(model, images):
    """-log of the members' probabilities, (M, *spatial, L), for each image."""
    return [
        -np.log(np.stack([m.predict_proba([image])[0] for m in model.segmenters_]).astype(float))
        for image in images
    ]


def everything(**options):
    return {"max_samples": None, "class_weight": None, "cv": 2, **options}


# Given weights


@pytest.mark.parametrize(
    "weights", ["equal", [1.0, 0.25], [[1.0, 0.2, 0.0], [0.3, 0.0, 2.0]], np.array([2, 1])], ids=str
)
@pytest.mark.parametrize("regions", [(), (1,), (0, 1)], ids=str)
def test_given_weights_equal_brute_force(rng, weights, regions):
    images, labels = planes_problem(rng)
    pairs = [
        (name, member.set_params(by_rows=m in regions)) for m, (name, member) in enumerate(pair())
    ]
    model = Blend(pairs, weights).fit(images, labels)
    full = np.full((2, 3), 0.5)
    if not isinstance(weights, str):
        full = np.broadcast_to(np.asarray(weights, float).reshape(2, -1), (2, 3))
    np.testing.assert_array_equal(model.weights_, full)
    np.testing.assert_array_equal(model.bias_, np.zeros(3))
    assert model.selected_ == ("equal weights" if isinstance(weights, str) else "given weights")
    assert model.scores_ == {}
    for scene, costs in zip(model.transform(images), logs(model, images), strict=True):
        expected = (full[:, np.newaxis, np.newaxis] * costs).sum(axis=0)
        np.testing.assert_allclose(scene.unary, expected, rtol=1e-4, atol=1e-4)
        assert np.array_equal(scene.prediction, expected.argmin(axis=-1))


def test_one_member_is_itself():
    images, labels = halves()
    for weights in ("equal", [1], None):
        model = Blend([("a", pixels())], weights, cv=2).fit(images, labels)
        alone = pixels().fit(images, labels)
        for a, b in zip(model.predict(images), alone.predict(images), strict=True):
            assert np.array_equal(a, b)


def test_costs_by_region_stay_by_region(rng):
    images, labels = planes_problem(rng)
    both = Blend(pair(by_rows=True), "equal").fit(images, labels).transform(images)[0]
    assert isinstance(both.region_costs, RegionCosts)
    assert both.region_costs.costs.shape == (12, 3)
    mixed = [("a", Planes(by_rows=True)), ("b", Planes(3))]
    assert Blend(mixed, "equal").fit(images, labels).transform(images)[0].region_costs is None
    found = Blend(mixed, [1.0, 0.0]).fit(images, labels).transform(images)[0]
    assert found.region_costs is not None


def test_no_cost_exceeds_the_bound_of_each_member(rng):
    images, labels = planes_problem(rng)
    model = Blend(pair(scale=1e4), [1.0, 0.5]).fit(images, labels)
    costs = model.transform(images)[0].unary
    assert costs.max() == pytest.approx(1.5 * MAX_COST, rel=1e-5)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ([1.0], r"weights has shape \(1,\); expected \(2,\).* or \(2, 1\)"),
        (np.ones((2, 4)), r"weights has shape \(2, 4\); expected \(2,\), .* or \(2, 3\)"),
        ([1.0, -1.0], "at least 0"),
        ([0.0, 0.0], "a positive one for each class"),
        ([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], "a positive one for each class"),
        ([np.nan, 1.0], "expected finite weights"),
        ("same", "'weights' parameter"),
    ],
)
def test_mistakes_in_weights_are_named(rng, weights, match):
    with pytest.raises(ValueError, match=match):
        Blend(pair(), weights).fit(*planes_problem(rng))
    with pytest.raises(ValueError, match="'alpha' parameter"):
        Blend(pair(), alpha=-1.0).fit(*planes_problem(rng))


def test_names_of_mixes_are_taken(rng):
    with pytest.raises(ValueError, match=r"names \['equal weights'\], which scores_ uses"):
        Blend([("equal weights", Planes())]).fit(*planes_problem(rng))


def test_weights_of_dropped_members_are_left_out(rng):
    images, labels = planes_problem(rng)
    model = Blend(pair(), [3.0, 1.0]).set_params(good="drop").fit(images, labels)
    np.testing.assert_array_equal(model.weights_, np.ones((1, 3)))


# Learned weights


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("class_weight", ["balanced", None])
def test_learned_weights_are_those_of_the_pool(rng, monkeypatch, per_class, class_weight):
    """On costs that do not depend on training, the weights fit all pixels of all images."""
    images, labels = planes_problem(rng, strengths=(2.0, 1.8))
    labels = [np.where(rng.random(lab.shape) < 0.6 * (lab == 1), 0, lab) for lab in labels]
    monkeypatch.setattr(Blend, "_judged", lambda self, sample: {"learned weights": 1.0})
    model = Blend(pair(), **everything(per_class=per_class, class_weight=class_weight, alpha=0.01))
    model.fit(images, labels)
    costs = np.concatenate([c.reshape(2, -1, 3) for c in logs(model, images)], axis=1)
    targets = np.concatenate([lab.ravel() for lab in labels])
    counts = np.bincount(targets)
    sample_weight = None if class_weight is None else 1 / counts[targets]
    weights, bias = fit_pool(
        np.minimum(costs, MAX_COST),
        targets,
        sample_weight=sample_weight,
        alpha=0.01,
        per_class=per_class,
    )
    np.testing.assert_allclose(model.weights_, weights, atol=1e-3)
    np.testing.assert_allclose(model.bias_, bias, atol=1e-3)


def test_learned_weights_score_what_they_are_judged_by(rng):
    """The scores are the mean IoU on images that the weights were not learned from."""
    images, labels = planes_problem(rng, n_images=4, strengths=(2.0, 1.8))
    model = Blend(pair(), **everything(per_class=True)).fit(images, labels)
    found = logs(model, images)
    equal = [costs.sum(axis=0).argmin(axis=-1) for costs in found]
    assert model.scores_["equal weights"] == pytest.approx(mean_iou(labels, equal))
    for m, name in enumerate(("good", "poor")):
        alone = [costs[m].argmin(axis=-1) for costs in found]
        assert model.scores_[name] == pytest.approx(mean_iou(labels, alone))
    judged = []
    for i in range(4):
        rest = [j for j in range(4) if j != i]
        other = Blend(pair(), **everything(per_class=True))
        other.fit([images[j] for j in rest], [labels[j] for j in rest])
        costs = np.concatenate([found[j].reshape(2, -1, 3) for j in rest], axis=1)
        targets = np.concatenate([labels[j].ravel() for j in rest])
        weights, bias = fit_pool(np.minimum(costs, MAX_COST), targets, alpha=0.01, per_class=True)
        mixed = np.einsum("m...l,ml->...l", found[i], weights) + bias
        judged.append(mixed.argmin(axis=-1))
    assert model.scores_["learned weights"] == pytest.approx(mean_iou(labels, judged), abs=2e-3)


def test_a_useless_member_gets_no_weight_and_does_no_harm(rng):
    images, labels = planes_problem(rng, n_images=6, shape=(40, 50), strengths=(2.0, 0.0))
    for per_class in (True, False):
        model = Blend(pair(), **everything(per_class=per_class)).fit(images[:4], labels[:4])
        assert model.weights_[1].max() < 0.1 * model.weights_[0].min()
        alone = Blend(pair()[:1], "equal").fit(images[:4], labels[:4])
        score = model.score(images[4:], labels[4:])
        assert score > alone.score(images[4:], labels[4:]) - 0.02
        equal = Blend(pair(), "equal").fit(images[:4], labels[:4])
        assert score > equal.score(images[4:], labels[4:]) + 0.05


def test_two_independent_members_are_better_than_each(rng):
    images, labels = planes_problem(rng, n_images=6, strengths=(1.5, 1.5))
    model = Blend(pair(), **everything()).fit(images[:4], labels[:4])
    assert abs(model.weights_[0] - model.weights_[1]).max() < 0.3
    score = model.score(images[4:], labels[4:])
    for _, member in pair():
        assert score > member.fit(images[:4], labels[:4]).score(images[4:], labels[4:]) + 0.05


def test_a_permutation_of_members_permutes_weights(rng):
    images, labels = planes_problem(rng, strengths=(2.0, 1.8))
    for per_class in (True, False):
        one = Blend(pair(), **everything(per_class=per_class)).fit(images, labels)
        two = Blend(pair()[::-1], **everything(per_class=per_class)).fit(images, labels)
        assert one.selected_ == two.selected_ == "learned weights"
        np.testing.assert_allclose(one.weights_, two.weights_[::-1], atol=2e-3)
        assert one.scores_ == pytest.approx(two.scores_, abs=5e-3)


def memorizer():
    return PixelClassifier(KNeighborsClassifier(1), features=PixelFeatures(sigmas=(1.0,)))


def noisy_halves():
    """Images of blocks whose labels are wrong at a third of the pixels, and the true labels."""
    images, labels = halves(((24, 32), (30, 22), (20, 26), (26, 20), (24, 24), (20, 30)))
    rng = np.random.default_rng(0)
    noisy = [
        np.where(rng.random(lab.shape) < 0.35, rng.integers(0, 3, lab.shape), lab) for lab in labels
    ]
    return images, noisy, labels


def test_only_in_sample_costs_favor_an_overfitted_member():
    """A memorizer is perfect on its training pixels, and poor on others."""
    images, noisy, labels = noisy_halves()
    pairs = [("memorizer", memorizer()), ("regions", superpixels())]
    options = {"alpha": 1e-4, "cv": 2, "random_state": 0}
    crossed = Blend(pairs, **options).fit(images[:4], noisy[:4])
    fitted = [(name, FrozenEstimator(clone(m).fit(images[:4], noisy[:4]))) for name, m in pairs]
    with pytest.warns(UserWarning, match="are frozen, so Blend learns from costs that may be in-"):
        in_sample = Blend(fitted, **options).fit(images[:4], noisy[:4])
    assert in_sample.scores_["memorizer"] == 1
    assert crossed.scores_["memorizer"] < crossed.scores_["regions"]
    fraction = [m.weights_[0, 0] / m.weights_[:, 0].sum() for m in (in_sample, crossed)]
    assert fraction[0] > 2 / 3
    assert fraction[1] < 1 / 3
    for found, lab in zip(in_sample.predict(images[:4]), noisy, strict=False):
        assert np.array_equal(found, lab)  # it repeats all wrong labels
    new = images[4:], labels[4:]
    assert crossed.score(*new) > in_sample.score(*new) + 0.1


# The choice


def test_the_best_of_what_was_compared_is_kept(rng):
    kept = set()
    for strengths in ((2.0, 1.9), (0.0, 0.3), (3.0, 0.1), (0.05, 0.0)):
        for seed in range(3):
            images, labels = planes_problem(
                np.random.default_rng(seed), n_images=3, shape=(6, 7), strengths=strengths
            )
            model = Blend(pair(), **everything(per_class=True, alpha=1e-4, cv=3))
            model.fit(images, labels)
            assert set(model.scores_) == {"learned weights", "equal weights", "good", "poor"}
            assert model.scores_[model.selected_] == max(model.scores_.values())
            kept.add(model.selected_)
            if model.selected_ == "equal weights":
                assert (model.weights_ == 0.5).all()
            if model.selected_ == "good":
                np.testing.assert_array_equal(model.weights_, [[1, 1, 1], [0, 0, 0]])
            if model.selected_ != "learned weights":
                assert (model.bias_ == 0).all()
    assert {"learned weights", "equal weights"} <= kept
    assert {"good", "poor"} & kept


def test_pixels_of_one_fold_only_choose_without_learned_weights(rng):
    images, labels = planes_problem(rng, n_images=1)
    few = np.full_like(labels[0], -1)
    few[0, :2] = labels[0][0, :2] = [0, 1]
    pairs = [
        ("good", FrozenEstimator(Planes().fit(images, labels))),
        ("poor", FrozenEstimator(Planes(3).fit(images, labels))),
    ]
    model = Blend(pairs, cv="prefit").fit(images, [few])
    assert np.isnan(model.scores_["learned weights"])
    assert model.selected_ != "learned weights"


@pytest.mark.parametrize("max_samples", [1, 30, 100, None])
def test_every_image_gives_the_same_number_of_pixels(rng, max_samples):
    images, labels = planes_problem(rng, n_images=4)
    labels[2][2:] = -1  # 28 pixels
    labels[3][:] = -1
    model = Blend(pair(), max_samples=max_samples, cv="prefit")
    drawn = []
    plain = Blend.cost_rows

    def count(self, scenes, places):
        drawn.append(len(places))
        assert len(np.unique(places)) == len(places)
        return plain(self, scenes, places)

    model.set_params(segmenters=[(n, m.fit(images, labels)) for n, m in pair()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blend, "cost_rows", count)
        model.fit(images, labels)
    expected = {1: [1, 1, 1], 30: [10, 10, 10], 100: [36, 36, 28], None: [168, 168, 28]}
    assert drawn == expected[max_samples]


def test_the_seed_determines_the_weights(rng):
    images, labels = planes_problem(rng, strengths=(2.0, 1.8))
    found = [
        Blend(pair(), max_samples=100, cv=2, random_state=seed).fit(images, labels).weights_
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_pixels_left_out_have_no_influence(rng):
    """Neither ignored labels nor pixels outside of the valid mask change anything learned."""
    images, labels = planes_problem(rng, values=(3, 5, 8))
    valid = [rng.random(lab.shape) < 0.7 for lab in labels]
    void = [rng.random(lab.shape) < 0.2 for lab in labels]
    found = []
    for color, outside, ignored in ((0.0, 3, 255), (1.0, -1, -1), (np.nan, 99, -7)):
        scenes, maps = [], []
        for image, lab, mask, hole in zip(images, labels, valid, void, strict=True):
            shown = image.copy()
            shown[~mask] = color
            scenes.append(Scene(shown, valid=mask))
            maps.append(np.where(mask, np.where(hole, ignored, lab), outside))
        model = Blend(pair(ignore_label=255), cv=2, random_state=0).fit(scenes, maps)
        found.append((model, model.predict(scenes)))
    for model, predicted in found:
        np.testing.assert_array_equal(model.weights_, found[0][0].weights_)
        assert model.scores_ == found[0][0].scores_
        assert model.classes_.tolist() == [3, 5, 8]
        for mask, one, other in zip(valid, predicted, found[0][1], strict=True):
            np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(one == -1, ~mask)


def test_images_held_out_alone_are_learned_from():
    images, labels = halves(((24, 32),) * 5)
    model = Blend(members(), cv="holdout", random_state=0).fit(images, labels)
    assert np.isfinite(model.scores_["learned weights"])  # the folds are blocks of one image
    assert model.score(images, labels) > 0.8


def test_groups_are_judged_together(rng):
    images, labels = planes_problem(rng, n_images=6)
    groups = ["a", "b", "c", "a", "b", "c"]
    model = Blend(pair(), **everything(cv=3))
    folds = []
    plain = Blend._judged

    def keep(self, sample):
        folds.append(sample.folds.reshape(6, -1))
        return plain(self, sample)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blend, "_judged", keep)
        model.fit(images, labels, groups=groups)
    assert folds[0][:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert (folds[0] == folds[0][:, :1]).all()


# Company


def test_tuned_and_refined():
    images, labels = halves(((24, 32), (30, 22), (20, 26), (26, 20)))
    piped = make_pipeline(Blend(members(), "equal", cv=2), DenseCRF(), GraphCut())
    search = GridSearchCV(
        piped, {"blend__weights": ["equal", [2, 1], None], "blend__per_class": [True]}, cv=KFold(2)
    )
    search.fit(images, labels)
    assert search.best_estimator_.score(images, labels) > 0.8
    cut = GraphCut(Blend(members(), "equal"), on="regions").fit(images, labels)
    assert cut.score(images, labels) > 0.8


def test_pickled_scenes_keep_their_costs():
    images, labels = halves()
    model = Blend(members(), cv=2, random_state=0).fit(images, labels)
    scenes = model.transform(images)
    for scene, again in zip(scenes, pickle.loads(pickle.dumps(scenes)), strict=True):
        np.testing.assert_array_equal(scene.unary, again.unary)
