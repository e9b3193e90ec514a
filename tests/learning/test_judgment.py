"""Held-out images judge strengths, and spare labels that would lose."""

import numpy as np
import pytest

from hybridseg.learning.judgment import STRENGTHS, judge


class Example:
    def __init__(self, costs, truth):
        self.costs, self.truth = costs, truth


class Part:
    def __init__(self, position):
        self.position = position

    def truth(self, example):
        return example.truth


class Corrects:
    """A fraction of the wrong labels becomes right, and all labels in ``harmed`` become 0."""

    def __init__(self, n_images=6, n_labels=4, harmed=(), helps=True):
        random = np.random.default_rng(0)
        self.harmed, self.helps, self.spared = harmed, helps, ()
        self.examples = []
        for _ in range(n_images):
            truth = random.integers(0, n_labels, 2000)
            noisy = np.where(random.random(2000) < 0.3, random.integers(0, n_labels, 2000), truth)
            self.examples.append(Example(-np.eye(n_labels)[noisy], truth))

    def example(self, position, whole):
        assert whole
        return self.examples[position]

    def weakened(self, point, strength):
        return point * strength

    def predict(self, point, example):
        labels = example.costs.argmin(axis=1)
        changed = np.arange(len(labels)) % 100 < 100 * point[0]
        right = example.truth if self.helps else (example.truth + 1) % 4
        labels = np.where(changed, right, labels)
        for label in set(self.harmed) - set(self.spared):
            labels = np.where(changed & (labels == label), 0, labels)
        return labels


class Spares(Corrects):
    def sparing(self, labels):
        known = Spares.__new__(Spares)
        vars(known).update(vars(self), spared=tuple(labels))
        return known


def judged(model, n_labels=4, tolerance=0.005):
    held = [(np.array([1.0]), Part(i)) for i in range(len(model.examples))]
    return judge(model, held, n_labels, tolerance)


def test_all_of_what_helps_is_used():
    report = judged(Corrects())
    assert report.chosen == 1.0
    assert report.chosen_spared == ()
    assert report.strengths == STRENGTHS
    assert report.position == 0


def test_nothing_of_what_harms_is_used():
    for model in (Corrects(helps=False), Spares(helps=False)):
        report = judged(model)
        assert report.chosen == 0
        assert report.position is None


def test_harmed_labels_are_spared():
    report = judged(Spares(harmed=(1, 3)))
    assert report.chosen == 1.0
    assert report.chosen_spared == (1, 3)
    assert report.class_changes[report.position].min() > 0
    assert report.strengths[: len(STRENGTHS)] == STRENGTHS
    assert judged(Corrects(harmed=(1, 3))).chosen == 0


@pytest.mark.parametrize("n_labels", [2, 4])
def test_at_least_two_labels_are_refined(n_labels):
    model = Spares(harmed=tuple(range(1, n_labels)), n_labels=n_labels)
    report = judged(model, n_labels)
    assert all(len({*spared}) <= n_labels - 2 for spared in report.spared)


def test_labels_that_still_lose_are_kept():
    class Stubborn(Spares):
        def predict(self, point, example):
            count = self.spared.count(1)
            kept = vars(self)["spared"]
            self.spared = (1,) if count >= 2 else ()
            labels = super().predict(point, example)
            self.spared = kept
            return labels

        def sparing(self, labels):
            known = Stubborn.__new__(Stubborn)
            vars(known).update(vars(self), spared=tuple(labels))
            return known

    report = judged(Stubborn(harmed=(1,)))
    assert report.chosen == 1.0
    assert report.chosen_spared.count(1) == 2


def test_each_part_is_judged_by_its_own_point():
    model = Corrects(n_images=2)
    held = [(np.array([1.0]), Part(0)), (np.array([0.0]), Part(1))]
    report = judge(model, held, 4, 0.005)
    whole = judged(model)
    assert 0.3 * whole.gains[0] < report.gains[0] < 0.7 * whole.gains[0]


def test_what_is_compared_with_has_strength_zero():
    """A bias that is given and not learned has an effect at strength 0 as well: it is no gain."""

    class Biased(Corrects):
        def predict(self, point, example):
            return example.truth

    report = judged(Biased())
    assert report.chosen == 0
    assert (report.gains == 0).all()
