"""The learner on a model whose best parameters are known."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import PredefinedSplit, ShuffleSplit

from hybridseg.learning import Learner
from hybridseg.learning.examples import Example
from hybridseg.learning.learner import blocks_of


class Offset:
    """Two labels; the first parameter is added to the cost of the second label."""

    class Recorded:
        def __init__(self, marginals):
            self.marginals = marginals
            self.nbytes = marginals.nbytes

        def gradient(self, given):
            second = self.marginals[:, 1].astype(np.float64)
            return np.array([(-(given[:, 1] - given[:, 0]) * second * (1 - second)).sum()])

    def __init__(self, bias=1.5, n_images=6, noise=0.5):
        random = np.random.default_rng(0)
        self.read, self.images = [], []
        for _ in range(n_images):
            truth = random.integers(0, 2, 400)
            costs = noise * random.standard_normal((400, 2)) - np.eye(2)[truth]
            costs[:, 1] -= bias
            self.images.append(
                Example(costs.astype(np.float32), truth, np.arange(400) // 100 % 3, None)
            )

    def example(self, position, whole):
        self.read.append(position)
        return self.images[position]

    def starts(self):
        return [np.array([0.0]), np.array([-2.0])]

    def record(self, point, example):
        costs = example.costs + np.array([0, point[0]])
        raised = np.exp(costs.min(axis=1, keepdims=True) - costs)
        return self.Recorded((raised / raised.sum(axis=1, keepdims=True)).astype(np.float32))

    def predict(self, point, example):
        return self.record(point, example).marginals.argmax(axis=1)

    def weakened(self, point, strength):
        return point * strength

    def penalty(self, point, strength):
        return strength * float(point @ point) / 2, strength * point

    def values(self, point):
        return {"offset": float(point[0])}


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("objective", ["iou", "dice", "log_likelihood"])
def test_it_finds_the_parameter(objective, optimizer):
    learner = Learner(objective=objective, optimizer=optimizer, alpha=0.0, random_state=0)
    report = learner.learn(Offset(), 6, 2)
    assert report.params["offset"] == pytest.approx(1.5, abs=0.35)
    assert report.start == {"offset": 0.0}
    assert report.strength == 1.0
    assert report.gate.n_images == 6
    assert report.gate.gains[0] > 0.05


def test_a_penalty_keeps_it_near_zero():
    found = [
        Learner(alpha=alpha, cv=None, random_state=0).learn(Offset(), 6, 2).params["offset"]
        for alpha in (0.0, 0.3)
    ]
    assert abs(found[1]) < 0.5 * abs(found[0])


def test_it_begins_at_the_best_start():
    report = Learner(max_iter=1, learning_rate=1e-9, random_state=0).learn(Offset(-2.0), 6, 2)
    assert report.start == {"offset": -2.0}


def test_nothing_passes_the_gate_if_nothing_is_to_gain():
    report = Learner(random_state=0).learn(Offset(0.0, noise=0.1), 6, 2)
    assert report.strength == 0
    assert report.params["offset"] == 0


def test_without_a_gate_all_images_are_learned_from():
    report = Learner(cv=None, random_state=0).learn(Offset(), 6, 2)
    assert report.gate is None
    assert report.strength == 1.0
    assert len(report.losses) == 1


def test_folds_of_images_of_groups_and_of_blocks():
    learner = Learner(cv=3, random_state=0)
    for train, test in learner._folds(6, None):
        both = {part.position for part in train} | {part.position for part in test}
        assert both == set(range(6))
        assert len(test) == 2
    groups = [0, 0, 0, 1, 1, 2]
    for train, test in learner._folds(6, groups):
        apart = {groups[part.position] for part in test}
        assert not apart & {groups[part.position] for part in train}
    model = Offset(n_images=1)
    report = learner.learn(model, 1, 2)
    assert report.gate.n_images == 3
    for (train,), (test,) in learner._folds(1, None):
        example = model.images[0]
        shown, held = train.truth(example) >= 0, test.truth(example) >= 0
        assert not (shown & held).any()
        assert (shown | held).all()
    one = Learner(cv=ShuffleSplit(1, test_size=0.5, random_state=0)).learn(Offset(), 6, 2)
    assert len(one.losses) == 1
    assert one.gate.n_images == 3


def test_blocks_are_for_single_images():
    assert blocks_of((20, 30), Learner(cv=3), 2) is None
    assert blocks_of((20, 30), Learner(cv=None), 1) is None
    found = blocks_of((20, 30), Learner(cv=3), 1)
    assert found.shape == (20, 30)
    assert np.array_equal(np.unique(found), [0, 1, 2])


def test_class_weights_shift_the_parameter():
    learner = {"objective": "log_likelihood", "cv": None, "random_state": 0}
    first, second = (
        Learner(class_weight=weight, **learner).learn(Offset(noise=2.0), 6, 2).params["offset"]
        for weight in ([1.0, 10.0], [10.0, 1.0])
    )
    assert first < second - 0.3


@pytest.mark.parametrize("weight", [[1.0], [0.0, 0.0], [-1.0, 2.0]])
def test_wrong_class_weights_are_refused(weight):
    with pytest.raises(ValueError, match="expected 2 numbers >= 0"):
        Learner(class_weight=weight).learn(Offset(), 6, 2)


def test_records_that_do_not_fit_are_computed_again(monkeypatch):
    expected = Learner(random_state=0).learn(Offset(), 6, 2).params
    monkeypatch.setattr("hybridseg.learning.learner._MAX_RECORD_BYTES", 0)
    monkeypatch.setattr("hybridseg.learning.learner._MAX_EXAMPLE_BYTES", 0)
    assert Learner(random_state=0).learn(Offset(), 6, 2).params == expected


def test_divergence_leaves_the_start():
    class Diverging(Offset):
        def penalty(self, point, strength):
            return 0.0, np.array([np.nan])

    with pytest.warns(UserWarning, match="learning diverged"):
        report = Learner(cv=None, random_state=0).learn(Diverging(), 6, 2)
    assert report.params == report.start


def test_held_out_images_have_no_influence_on_what_is_judged_by_them():
    """Neither steps nor the start of a fold may depend on the images that judge it."""
    split = PredefinedSplit([-1, -1, 0, -1, -1, 0])
    found = []
    for bias in (1.5, -6.0):
        model = Offset()
        for position in (2, 5):
            example = model.images[position]
            costs = example.costs + np.float32([0, 1.5 - bias])
            model.images[position] = replace(example, costs=costs)
        found.append(Learner(cv=split, random_state=0).learn(model, 6, 2))
    np.testing.assert_array_equal(found[0].losses[0], found[1].losses[0])
    assert found[0].start == found[1].start
    assert found[0].gate.gains[0] != found[1].gate.gains[0]
