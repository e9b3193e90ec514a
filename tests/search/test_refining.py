"""Refiners are judged on images that they did not learn from, and must surely help."""

from typing import ClassVar

import numpy as np
import pytest

from hybridseg import DenseCRF
from hybridseg.base import HardRefiner
from hybridseg.learning import Learner
from hybridseg.search.clock import Clock
from hybridseg.search.refining import best_of, compare, fitted_to, learns
from tests.search.stubs import HANDS, Known, data
from tests.search.test_held_out import held, labeled


class Correcting(HardRefiner):
    """Reads labels off some of the images, and errs at a known rate on others."""

    _parameter_constraints: ClassVar = {}

    def __init__(self, errors=0.0, cost=0.1, fails=False, learn=None):
        self.estimator = None
        self.intensity_range = None
        self.errors = errors
        self.cost = cost
        self.fails = fails
        self.learn = learn

    @classmethod
    def _get_param_names(cls):
        return ["cost", "errors", "fails", "learn"]

    def fit(self, X, y=None, groups=None):
        if self.fails:
            raise RuntimeError("this refiner fails")
        self.seen_ = {np.asarray(scene.image).tobytes() for scene in X}
        self.truth_ = y
        return super().fit(X)

    def _label_indices(self, scene):
        HANDS.time += self.cost
        image = np.asarray(scene.image)
        if self.learn is not None:
            assert image.tobytes() not in self.seen_, "judged by what it learned from"
        wrong = np.random.default_rng(int(image.sum())).random(image.shape) < self.errors
        return np.where(wrong, 1 - image // 100, image // 100)


def compared(refiners, *, errors=0.2, n_images=8, cv=2, budget=1e9, groups=None):
    given = labeled(*data(n_images), cv=cv, groups=groups)
    scenes = held(Known(errors), given)
    HANDS.time = 0.0
    return compare(refiners, scenes, given, Clock(budget, HANDS), "mean_iou", budget)


def test_a_sure_gain_is_used(hands):
    trials = compared([("same", Correcting(0.2)), ("good", Correcting(0.1))])
    assert best_of(trials).name == "good"
    assert trials[2].gain.sure > 0


def test_no_harm_is_done(hands):
    trials = compared([("bad", Correcting(0.3)), ("same", Correcting(0.2))])
    assert [trial.status for trial in trials] == ["scored"] * 3
    assert best_of(trials).refiner is None


def test_a_gain_that_is_not_sure_is_not_used(hands):
    """With two images of one unit each there is no evidence."""
    trials = compared([("good", Correcting(0.0))], n_images=8)
    cut = [trials[0], trials[1]]
    cut[1].gain = type(cut[1].gain)(cut[1].gain.mean, None, None)
    assert cut[1].gain.mean > 0
    assert best_of(cut).refiner is None


def test_with_few_images_a_refiner_that_does_not_learn_needs_no_sure_gain(hands):
    trials = compared(
        [("good", Correcting(0.1)), ("learns", Correcting(0.0, learn="weights"))], n_images=8
    )
    for trial in trials:
        trial.gain = type(trial.gain)(trial.gain.mean, None, None)
    assert [trial.gain.mean > 0 for trial in trials] == [False, True, True]
    assert best_of(trials).refiner is None
    assert best_of(trials, few=True).name == "good"
    trials[1].gain = type(trials[1].gain)(-0.01, None, None)
    assert best_of(trials, few=True).refiner is None


@pytest.mark.parametrize("cv", [2, 3, 5])
def test_those_that_learn_never_see_the_images_that_judge_them(hands, cv):
    trials = compared([("learns", Correcting(0.1, learn="weights"))], cv=cv)
    assert trials[1].status == "scored"
    assert trials[1].counts.shape == trials[0].counts.shape


def test_one_image_is_learned_from_by_blocks(hands):
    given = labeled(*data(1, (24, 24)), cv=2)
    scenes = held(Known(0.1), given)
    first = given.folds(1)[0]
    model = fitted_to(Correcting(learn="weights"), list(scenes.scenes), given, first)
    known = model.truth_[0] >= 0
    assert 0 < known.sum() < known.size
    learner = Learner("weights", max_iter=2, cv=2, random_state=0)
    trials = compare([("CRF", DenseCRF(learn=learner))], scenes, given, Clock(1e9), "mean_iou", 1e9)
    assert trials[1].status == "scored"
    assert trials[1].counts.sum() == trials[0].counts.sum()


def test_a_failing_one_is_recorded(hands):
    trials = compared([("fails", Correcting(fails=True)), ("good", Correcting())])
    assert trials[1].status == "failed: RuntimeError: this refiner fails"
    assert best_of(trials).name == "good"


def test_a_slow_one_is_stopped(hands):
    trials = compared([("slow", Correcting(cost=50.0)), ("good", Correcting())], budget=60.0)
    assert trials[1].status == "stopped after 50.0 s"
    assert trials[2].status == "scored"


def test_learning_that_would_take_too_long_is_not_started(hands):
    refiners = [("learns", Correcting(learn="all")), ("plain", Correcting(0.1, cost=0.2))]
    trials = compared(refiners, budget=100.0)
    assert trials[1].status == "not started: no time was left"
    assert trials[2].status == "scored"


def test_learns():
    assert learns(DenseCRF(learn="all"))
    assert not learns(DenseCRF())
