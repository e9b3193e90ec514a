"""Segmenters inside a segmenter: their names, their shared folds, their classes and labels."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit, cross_validate
from sklearn.pipeline import make_pipeline

from hybridseg import Blend, CrossFit, DenseCRF, GraphCut, GridCRF, Scene, StackedSegmenter
from hybridseg.scene.costs import RegionCosts
from hybridseg.unary.cross_fit import block_folds
from hybridseg.unary.members import MemberSegmenter, base_scene
from hybridseg.unary.opinion_pool import MAX_COST, normalized_costs
from tests.subjects import deep, halves, members, pixels, superpixels
from tests.unary.planes import Planes, planes_problem

SHAPES = ((24, 32), (30, 22), (20, 26), (26, 20))


class Recorder(MemberSegmenter):
    """Keeps the costs held out; its own costs are those of the first member."""

    def __init__(self, segmenters, cv=2, random_state=None):
        self.segmenters = segmenters
        self.cv = cv
        self.random_state = random_state

    def _learn(self, held_out):
        self.held_out_ = held_out

    def _costs(self, scene, members):
        return self.member_costs(0, members[0])


@pytest.fixture
def data():
    return halves(SHAPES)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# Names and parameters


def test_parameters_by_name():
    model = Blend(members())
    params = model.get_params()
    assert params["pixels"] is model.segmenters[0][1]
    assert params["pixels__features__sigmas"] == (1.0,)
    assert set(model.get_params(deep=False)) < set(params)
    assert "pixels" not in model.get_params(deep=False)
    model.set_params(pixels__max_samples=7, regions__superpixels__n_segments=11, cv=3)
    assert model.segmenters[0][1].max_samples == 7
    assert model.segmenters[1][1].superpixels.n_segments == 11
    assert model.cv == 3
    other = superpixels()
    assert model.set_params(pixels=other) is model
    assert model.segmenters[0] == ("pixels", other)
    model.set_params(segmenters=[("new", pixels())], new__max_samples=3)
    assert model.get_params()["new__max_samples"] == 3
    with pytest.raises(ValueError, match="Invalid parameter 'wrong'"):
        model.set_params(wrong=1)


def test_parameters_of_segmenters_that_are_no_pairs():
    for wrong in (None, [1, 2], [("a",)], "ab"):
        assert Blend(wrong).get_params()["segmenters"] is wrong
        assert "segmenters" in repr(Blend(wrong))


def test_names_of_the_fitted(data):
    model = Recorder([*members(), ("none", "drop")]).fit(*data)
    assert model.names_ == ["pixels", "regions"]
    assert model.named_segmenters_.pixels is model.segmenters_[0]
    assert model.named_segmenters_["regions"] is model.segmenters_[1]
    model.set_params(pixels="drop")
    assert list(model.named_segmenters_) == ["pixels", "regions"]
    assert model.fit(*data).names_ == ["regions"]


def test_dropped_members_change_nothing(data):
    images, labels = data
    both = Blend(members(), "equal").set_params(regions="drop").fit(images, labels)
    alone = Blend(members()[:1], "equal").fit(images, labels)
    assert same(both.predict_proba(images), alone.predict_proba(images))


@pytest.mark.parametrize(
    ("segmenters", "error", "match"),
    [
        ([], ValueError, "holds no segmenter; expected at least one"),
        ([("a", "drop")], ValueError, "holds no segmenter"),
        ([pixels()], TypeError, r"expected a list of \(name, segmenter\)"),
        ([(1, pixels())], TypeError, r"expected a list of \(name, segmenter\)"),
        ([("a", pixels()), ("a", pixels())], ValueError, "not unique"),
        ([("a__b", pixels())], ValueError, "must not contain __"),
        ([("cv", pixels())], ValueError, "conflict with constructor arguments"),
        (
            [("a", GraphCut(pixels()))],
            TypeError,
            r"'a' is GraphCut\(\.\.\.\); .*comes after this estimator",
        ),
        ([("a", "passthrough")], TypeError, "'a' is 'passthrough'; expected a segmenter"),
        ([("a", type(pixels()))], TypeError, "expected a segmenter with fit"),
        ((("a", pixels()),), ValueError, "'segmenters' parameter"),
    ],
)
def test_mistakes_in_segmenters_are_named(data, segmenters, error, match):
    with pytest.raises(error, match=match):
        Recorder(segmenters).fit(*data)


def test_grid_search_in_two_processes(data):
    images, labels = data
    grid = {"pixels__max_samples": [40, 4000], "regions": [superpixels(), "drop"]}
    search = GridSearchCV(Blend(members(), "equal"), grid, cv=KFold(2), n_jobs=2)
    search.fit(images, labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.score(images, labels) > 0.8


def test_in_pipelines_and_in_each_other(data):
    images, labels = data
    inner = Blend(members(), "equal")
    piped = make_pipeline(
        Blend([("both", inner), ("crf", make_pipeline(pixels(), GridCRF()))], cv=2), DenseCRF()
    ).fit(images, labels)
    assert piped.score(images, labels) > 0.8
    crossed = CrossFit(inner, cv=2).fit_transform(images, labels)
    assert all(scene.meta["out_of_fold"] for scene in crossed)
    assert clone(piped).get_params()["blend__both__pixels__max_samples"] == 20_000


def test_groups_are_routed(data):
    images, labels = data
    groups, folds = [0, 0, 1, 1], []
    splits = list(GroupKFold(2).split(images, groups=[0, 1, 2, 3]))
    with sklearn.config_context(enable_metadata_routing=True):
        inner = Recorder(members()).set_fit_request(groups=True)
        model = GridCRF(inner).fit(images, labels, groups=groups)
        folds.append(model.estimator_.held_out_.groups)
        scores = cross_validate(
            inner,
            images,
            labels,
            cv=GroupKFold(2),
            params={"groups": [0, 1, 2, 3]},
            return_estimator=True,
        )
    assert np.array_equal(folds[0], groups)
    expected = [np.delete([0, 1, 2, 3], test).tolist() for _, test in splits]
    assert [e.held_out_.groups.tolist() for e in scores["estimator"]] == expected


def test_it_is_shown_in_notebooks():
    assert "superpixels" in Blend(members())._repr_html_()


# The costs held out


@pytest.mark.parametrize("cv", [2, KFold(2)])
def test_costs_held_out_are_those_of_cross_fit(data, cv):
    held_out = Recorder(members(), cv).fit(*data).held_out_
    assert held_out.positions.tolist() == [0, 1, 2, 3]
    for m, (_, member) in enumerate(members()):
        for i, scene in enumerate(CrossFit(member, cv=2).fit_transform(*data)):
            assert np.array_equal(held_out.scenes[i][m].unary, scene.unary)
            assert held_out.scenes[i][m].meta["out_of_fold"]


def test_all_members_have_the_same_random_folds(data):
    """Members that learn the same have the same costs, in splits that no seed fixes."""
    for cv in ("holdout", ShuffleSplit(2, test_size=0.25)):
        held_out = Recorder([("a", pixels()), ("b", pixels())], cv).fit(*data).held_out_
        assert 1 <= len(held_out.positions) < 4
        for i in held_out.positions:
            a, b = held_out.scenes[i]
            assert a.meta["out_of_fold"]
            assert np.array_equal(a.unary, b.unary)


def test_groups_stay_together(data):
    groups = np.array([0, 1, 0, 1])
    held_out = Recorder(members()).fit(*data, groups=groups).held_out_
    expected = CrossFit(pixels(), cv=2).fit_transform(*data, groups=groups)
    assert same([pair[0].unary for pair in held_out.scenes], [s.unary for s in expected])
    assert np.array_equal(held_out.groups, groups)


def test_one_image_is_cut_into_blocks():
    images, labels = halves(((36, 40),))
    held_out = Recorder(members(), cv=3).fit(images, labels).held_out_
    fold_of = block_folds((36, 40), 3)
    scene = held_out.scenes[0][0]
    for fold in range(3):
        model = pixels().fit(images, [np.where(fold_of == fold, -1, labels[0])])
        expected = model.transform(images)[0].unary
        assert np.array_equal(scene.unary[fold_of == fold], expected[fold_of == fold])


def test_members_are_those_fitted_on_all_images(data):
    images, labels = data
    model = Recorder(members()).fit(images, labels)
    for fitted, (_, member) in zip(model.segmenters_, members(), strict=True):
        expected = member.fit(images, labels)
        assert same(fitted.predict_proba(images), expected.predict_proba(images))


def test_too_few_images(data):
    images, labels = data
    model = Recorder(members()).fit(images, labels)
    before = dict(vars(model))
    with pytest.raises(ValueError, match="cv=9, but there are 4 images; expected at least 9"):
        model.set_params(cv=9).fit(images, labels)
    assert {**before, "cv": 9} == vars(model)


def test_labeled_pixels_of_images_held_out(data):
    images, labels = data
    held_out = Recorder(members(), "holdout", random_state=0).fit(images, labels).held_out_
    (place,) = held_out.positions
    expected = np.zeros((4, 3), int)
    expected[place] = np.bincount(labels[place].ravel())
    assert np.array_equal(held_out.counts(), expected)
    labels[place] = np.full_like(labels[place], -1)
    for kind in (Blend, StackedSegmenter):
        model = kind(members(), cv="holdout", random_state=0)
        with pytest.raises(ValueError, match=rf"positions \[{place}\] of X, have no labeled pixel"):
            model.fit(images, labels)


# Members that were fitted before


def test_frozen_members_warn(data):
    images, labels = data
    frozen = FrozenEstimator(pixels().fit(images[:2], labels[:2]))
    pairs = [("old", frozen), ("new", superpixels())]
    with pytest.warns(UserWarning, match=r"\['old'\] are frozen.*in-sample.*cv='prefit'"):
        model = Recorder(pairs).fit(images, labels)
    assert model.segmenters_[0] is frozen
    Blend(pairs, "equal").fit(images, labels)  # learns no weights


def test_prefit_members_are_used_as_they_are(data):
    images, labels = data
    pairs = [(name, member.fit(images[:2], labels[:2])) for name, member in members()]
    model = Recorder(pairs, "prefit").fit(images[2:], labels[2:])
    assert model.segmenters_ == [member for _, member in pairs]
    for i in range(2):
        for (_, member), scene in zip(pairs, model.held_out_.scenes[i], strict=True):
            assert np.array_equal(scene.unary, member.transform(images[2 + i : 3 + i])[0].unary)
    frozen = [(name, FrozenEstimator(member)) for name, member in pairs]
    again = clone(Recorder(frozen, "prefit")).fit(images[2:], labels[2:])
    assert same(again.predict(images), model.predict(images))
    with pytest.raises(NotFittedError, match="not fitted"):
        Recorder(members(), "prefit").fit(images, labels)


# Classes and labels


def test_members_that_lack_classes(rng):
    """The costs are in the order of all classes; a class that a member does not know is dear."""
    images, labels = planes_problem(rng, values=(2, 5, 9))
    few = [np.where(lab == 5, -1, lab) for lab in labels]
    pairs = [
        ("all", Planes().fit(images, labels)),
        ("some", Planes(3).fit(images, few)),
        ("further", Planes(classes=(2, 5, 7, 9)).fit(images, labels)),
    ]
    model = Recorder(pairs, "prefit").fit(images, labels)
    assert model.classes_.tolist() == [2, 5, 7, 9]
    scenes = [member.transform(images[:1])[0] for member in model.segmenters_]
    some = model.member_costs(1, scenes[1])
    np.testing.assert_allclose(some[..., [1, 2]], MAX_COST, rtol=1e-6)
    np.testing.assert_array_equal(some[..., [0, 3]], normalized_costs(scenes[1].unary))
    np.testing.assert_array_equal(
        model.member_costs(2, scenes[2]), normalized_costs(scenes[2].unary)
    )
    with pytest.raises(ValueError, match=r"y holds the labels \[5\], but .* trained on \[2, 9\]"):
        Recorder(pairs[1:2], "prefit").fit(images, labels)


def test_a_class_that_a_fold_lacks(data):
    images, labels = data
    labels = [lab if i == 3 else np.where(lab == 2, -1, lab) for i, lab in enumerate(labels)]
    model = Recorder(members()).fit(images, labels)
    assert model.classes_.tolist() == [0, 1, 2]
    for m in range(2):
        costs = model.member_costs(m, model.held_out_.scenes[3][m])
        costs = costs.costs if isinstance(costs, RegionCosts) else costs
        np.testing.assert_allclose(costs[..., 2], MAX_COST, rtol=1e-6)


def test_ignored_labels_come_from_the_members(data):
    images, labels = data
    labels = [np.where(lab == 2, 255, lab) for lab in labels]
    model = Recorder(members(ignore_label=255)).fit(images, labels)
    assert model.classes_.tolist() == [0, 1]
    _, indices = model.held_out_.training[0]
    assert np.array_equal(indices, np.where(labels[0] == 255, -1, labels[0]))
    assert model.transform(images)[0].ignore_label == 255
    mixed = [("a", pixels(ignore_label=255)), ("b", superpixels())]
    with pytest.raises(ValueError, match=r"ignore different labels: \{'a': 255, 'b': None\}"):
        Recorder(mixed).fit(images, labels)
    assert Recorder(mixed).fit(*data).transform(images)[0].ignore_label == 255
    with pytest.raises(ValueError, match="ignore different labels"):
        Recorder([*mixed, ("c", pixels(ignore_label=254))]).fit(*data)


def test_labels_outside_the_valid_mask_are_not_read(data):
    images, labels = data
    valid = [np.ones(lab.shape, bool) for lab in labels]
    for mask in valid:
        mask[:, -5:] = False
    scenes = [Scene(image, valid=mask) for image, mask in zip(images, valid, strict=True)]
    spoiled = [np.where(mask, lab, 77) for mask, lab in zip(valid, labels, strict=True)]
    model = Recorder(members()).fit(scenes, spoiled)
    assert model.classes_.tolist() == [0, 1, 2]
    _, indices = model.held_out_.training[1]
    assert np.array_equal(indices == -1, ~valid[1])


# Scenes


def test_scenes_keep_what_is_known(data):
    images, labels = data
    seeds = np.full(labels[0].shape, -1)
    scene = Scene(images[0], seeds=seeds, spacing=(2.0, 1.0), meta={"name": "first"})
    for order in (members(), members()[::-1]):
        model = Recorder(order).fit(images, labels)
        found = model.transform([scene])[0]
        assert found.seeds is seeds
        assert found.spacing == (2.0, 1.0)
        assert found.meta["name"] == "first"
        assert found.classes.tolist() == [0, 1, 2]
        by_region = model.named_segmenters_.regions.transform([scene])[0]
        assert np.array_equal(found.regions, by_region.regions)
    without = Recorder(members()[:1]).fit(images, labels).transform(images)[0]
    assert without.source("regions") is None


def test_base_scene_has_neither_costs_nor_labels(rng):
    scene = Scene(np.zeros((3, 4)), rng.random((3, 4, 2)), labels=np.zeros((3, 4), int))
    other = Scene(np.zeros((3, 4)), regions=np.ones((3, 4), np.int32), ignore_label=9)
    found = base_scene((scene, other), np.array([3, 5]))
    assert not found.has_costs
    assert not found.has_labels
    assert found.classes.tolist() == [3, 5]
    assert found.ignore_label == 9
    assert np.array_equal(found.regions, other.regions)


def test_costs_are_computed_when_read(rng, monkeypatch):
    images, labels = planes_problem(rng)
    computed = []
    plain = Planes._costs
    monkeypatch.setattr(Planes, "_costs", lambda s, scene: computed.append(s) or plain(s, scene))
    pairs = [("a", Planes()), ("b", Planes(3))]
    model = Blend(pairs, [1.0, 0.0]).fit(images, labels)
    scenes = model.transform(images)
    assert not computed
    assert scenes[0].unary.shape == (12, 14, 3)
    assert len(computed) == 1  # the other member has no weight


def test_a_later_fit_does_not_change_scenes(data):
    images, labels = data
    model = Recorder(members()).fit(images, labels)
    expected = model.predict_proba(images)
    scenes = model.transform(images)
    model.fit(images, [np.where(lab == 2, 0, lab) for lab in labels])
    assert same([scene.proba for scene in scenes], expected)


def test_a_lazy_sequence_is_read_once(data):
    class Images:
        read = 0

        def __len__(self):
            return len(data[0])

        def __getitem__(self, i):
            Images.read += 1
            return data[0][i]

    model = Recorder(members()).fit(Images(), data[1])
    assert Images.read == 4
    assert same(model.predict(Images()), model.predict(data[0]))


def test_networks_are_members(data):
    images, labels = data
    model = Recorder([("net", deep()), *members()]).fit(images, labels)
    assert model.predict_proba(images)[0].shape == (24, 32, 3)
