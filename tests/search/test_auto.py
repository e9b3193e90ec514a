"""AutoHybrid: the whole search."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline

import hybridseg
from hybridseg import AutoHybrid, CrossFit, DenseCRF, GraphCut, GridCRF, PixelClassifier
from hybridseg.learning import Learner
from hybridseg.metrics import mean_iou
from tests.search.stubs import Known, data
from tests.search.test_refining import Correcting
from tests.subjects import forest, halves, pixels, superpixels

SHAPES = ((24, 32), (30, 22), (20, 26), (26, 20), (22, 22), (24, 24))


def stubs(*errors, **options):
    return [(f"stub{i}", Known(each, **options)) for i, each in enumerate(errors)]


def auto(segmenters, refiners=(), **options):
    return AutoHybrid(
        segmenters=segmenters, refiners=list(refiners), cv=2, random_state=0, **options
    )


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_finds_the_best_and_fits_it_to_all_images(hands):
    images, labels = data(27)
    model = auto(stubs(0.3, 0.0, 0.2, 0.4), budget=1e6).fit(images, labels)
    assert model.best_estimator_[0].errors == 0.0
    assert len(model.best_estimator_[0].sums_) == 27
    assert model.best_score_ == model.leaderboard_.rows[0].score == 1.0
    assert model.seconds_ == hands.time
    assert model.score(images, labels) == 1.0


def test_blend_wins_if_it_is_better(hands):
    model = auto(stubs(0.2, 0.2)).fit(*data(12, (30, 30)))
    names = {row.segmenter for row in model.leaderboard_}
    assert "stub0 + stub1" in names or "stub1 + stub0" in names


def test_do_no_harm(hands):
    images, labels = data(12)
    bad = auto(stubs(0.1), [("bad", Correcting(0.3))]).fit(images, labels)
    assert list(bad.best_estimator_.named_steps) == ["segmenter"]
    good = auto(stubs(0.1), [("bad", Correcting(0.3)), ("good", Correcting())])
    assert good.fit(images, labels).best_estimator_.named_steps["refiner"].errors == 0
    assert good.leaderboard_.rows[0].refiner == "good"
    assert not hasattr(good, "predict_proba")
    assert hasattr(bad, "predict_proba")


@pytest.mark.parametrize("make", [pixels, superpixels])
@pytest.mark.parametrize("refiner", [None, DenseCRF(), GraphCut()])
def test_equals_a_pipeline_of_the_same_steps(make, refiner):
    images, labels = halves(SHAPES)
    refiners = [] if refiner is None else [("only", refiner)]
    model = auto([("only", make())], refiners).fit(images, labels)
    steps = [make()] if len(model.best_estimator_) == 1 else [make(), clone(refiner)]
    plain = make_pipeline(*steps).fit(images, labels)
    assert isinstance(model.best_estimator_, Pipeline)
    assert same(model.predict(images), plain.predict(images))
    assert same(model.predict(images), model.best_estimator_.predict(images))
    assert np.array_equal(model.classes_, plain.classes_)


def test_a_learned_refiner_equals_one_after_cross_fit(hands, monkeypatch):
    """It learns from held-out costs of all images, in the order of the search."""
    images, labels = halves(SHAPES)
    learner = Learner("weights", max_iter=2, cv=2, random_state=0)
    crf = GridCRF(learn=learner)
    monkeypatch.setattr("hybridseg.search.auto.best_of", lambda trials, few: trials[-1])
    model = auto([("only", pixels())], [("CRF", crf)]).fit(images, labels)
    order = hybridseg.search.held_out.Labeled.of(
        hybridseg.base.TrainingSet.read(images, labels, None, None),
        *(None, 2, ()),
        np.random.default_rng(int(np.random.default_rng(0).integers(2**31))),
    ).order
    X, y = [images[i] for i in order], [labels[i] for i in order]
    plain = clone(crf).fit(CrossFit(pixels(), cv=2).fit_transform(X, y), y)
    fitted = model.best_estimator_[-1]
    assert fitted.params_.keys() == plain.params_.keys()
    for name, value in plain.params_.items():
        assert fitted.params_[name] == pytest.approx(value)


def test_a_tiny_budget_still_fits(hands):
    images, labels = data(12)
    with pytest.warns(UserWarning, match=r"the budget of 0.5 s (was exceeded|is too short)"):
        model = auto(stubs(0.2, 0.0), [("good", Correcting())], budget=0.5).fit(images, labels)
    assert model.best_estimator_[0].errors == 0.2
    assert len(model.predict(images)) == 12
    assert "no time" in str(model.leaderboard_)


@pytest.mark.parametrize("budget", [60.0, 150.0, 400.0])
@pytest.mark.parametrize("n_images", [1, 6, 60])
def test_budget_is_kept(hands, budget, n_images):
    segmenters = stubs(0.3, 0.2, 0.25, 0.1, fit_cost=0.5, cost=0.05)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the budget of")
        model = auto(segmenters, [("good", Correcting(cost=0.2))], budget=budget)
        model.fit(*data(n_images))
    assert model.seconds_ <= 1.05 * budget


def test_failures_are_recorded(hands):
    images, labels = data(8)
    segmenters = [("bad", Known(fails=True)), ("good", Known())]
    model = auto(segmenters, [("broken", Correcting(fails=True))]).fit(images, labels)
    found = {(row.segmenter, row.refiner): row.status for row in model.leaderboard_}
    assert found["bad", "none"] == "failed: RuntimeError: this stub fails"
    assert found["good", "broken"] == "failed: RuntimeError: this refiner fails"
    assert found["good", "none"] == "best"


def test_all_fail(hands):
    images, labels = data(8)
    model = auto(stubs(0.0)).fit(images, labels)
    before = dict(vars(model))
    model.segmenters = [("bad", Known(fails=True))]
    with pytest.raises(RuntimeError, match="this stub fails"):
        model.fit(images, labels)
    model.segmenters = before["segmenters"]
    assert vars(model) == before


def test_the_next_best_is_fitted_if_the_best_fails_at_last(hands, monkeypatch):
    from hybridseg.search import auto as module

    def failing(trial, *others, refit=module.refit):
        if trial.segmenter.get_params().get("errors", 0) == 0:
            raise MemoryError("all images are too many")
        return refit(trial, *others)

    monkeypatch.setattr(module, "refit", failing)
    model = auto(stubs(0.0, 0.4)).fit(*data(8))
    assert model.best_estimator_[0].errors == 0.4
    assert "failed: MemoryError" in str(model.leaderboard_)


def test_scribbles_on_one_image():
    images, labels = halves(((48, 64),))
    rng = np.random.default_rng(0)
    drawn = [np.where(rng.random(labels[0].shape) < 0.05, labels[0], -1)]
    segmenters = [("pixels", pixels()), ("regions", superpixels())]
    model = auto(segmenters, [("CRF", DenseCRF())]).fit(images, drawn)
    assert model.leaderboard_.unit == "blocks"
    assert model.leaderboard_.rows[0].interval is not None
    assert mean_iou(labels, model.predict(images)) > 0.9


def test_groups_are_never_on_both_sides(hands):
    images, labels = data(12)
    groups = np.arange(12) % 4
    number = {int(image.astype(np.int64).sum()): g for image, g in zip(images, groups, strict=True)}
    seen = []

    class Watching(Known):
        def _costs(self, scene):
            own = number[int(np.asarray(scene.image, np.int64).sum())]
            seen.append(own in {number[total] for total in self.sums_})
            return super()._costs(scene)

    auto([("only", Watching(0.1))], [("good", Correcting())]).fit(images, labels, groups=groups)
    assert seen
    assert not any(seen)


def test_equal_seeds_give_equal_results():
    images, labels = halves(SHAPES)
    segmenters = [("regions", superpixels()), ("pixels", PixelClassifier(forest(), max_samples=50))]
    segmenters[1][1].random_state = 0
    boards = []
    for _ in range(2):
        model = auto(segmenters, [("CRF", DenseCRF())], budget=1e4).fit(images, labels)
        boards.append([(r.segmenter, r.refiner, r.score, r.interval) for r in model.leaderboard_])
    assert boards[0] == boards[1]


@pytest.mark.parametrize("metric", ["mean_dice", "pixel_accuracy"])
def test_metrics(hands, metric):
    model = auto(stubs(0.2), metric=metric).fit(*data(9, (40, 40)))
    expected = 0.8  # the accuracy; and Dice, as both classes are as frequent
    assert model.best_score_ == pytest.approx(expected, abs=0.02)
    assert model.leaderboard_.metric == metric


def test_inside_a_pipeline_and_after_saving(tmp_path):
    images, labels = halves(SHAPES)
    model = auto([("regions", superpixels())], [("CRF", DenseCRF())])
    piped = make_pipeline(model, GraphCut()).fit(images, labels)
    assert [found.shape for found in piped.predict(images)] == [y.shape for y in labels]
    assert model.fit_transform(images, labels)[0].meta["out_of_fold"] is False
    for name, saved in (("whole", model), ("best", model.best_estimator_)):
        path = tmp_path / f"{name}.hybridseg"
        hybridseg.save(saved, path)
        assert same(hybridseg.load(path).predict(images), model.predict(images))
    board = hybridseg.load(tmp_path / "whole.hybridseg").leaderboard_
    assert str(board) == str(model.leaderboard_)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": 0}, ValueError, "budget"),
        ({"budget": "long"}, ValueError, "budget"),
        ({"cv": 1}, ValueError, "cv"),
        ({"metric": "f1"}, ValueError, "metric"),
        ({"segmenters": []}, ValueError, "segmenters is empty"),
        ({"segmenters": [pixels()]}, TypeError, "segmenters holds"),
        ({"refiners": [("CRF", 3)]}, TypeError, "refiners: 'CRF' is 3"),
        ({"refiners": [("CRF", DenseCRF(pixels()))]}, ValueError, "'CRF' has an inner segmenter"),
    ],
)
def test_bad_parameters(options, error, message):
    model = AutoHybrid(**{"segmenters": [("pixels", pixels())], **options})
    with pytest.raises(error, match=message):
        model.fit(*halves())


def test_classes_that_y_lacks():
    images, labels = halves()
    model = AutoHybrid(
        segmenters=[("pixels", pixels(classes=[0, 1, 2, 5]))], refiners=[], classes=[0, 1, 2, 5]
    )
    assert model.fit(images, labels).classes_.tolist() == [0, 1, 2, 5]
    model.classes = None
    with pytest.raises(ValueError, match=r"knows the classes \[5\], which y lacks; pass all"):
        model.fit(images, labels)
