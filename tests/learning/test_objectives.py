"""Objectives: their gradients, void pixels, weights, and the scores that they stand for."""

import numpy as np
import pytest

from hybridseg.learning.objectives import OBJECTIVES, make_objective
from hybridseg.metrics import confusion_table


def problem(rng, n=60, n_labels=4, void=0.2):
    marginals = rng.dirichlet(np.ones(n_labels), n)
    truth = rng.integers(0, n_labels, n)
    truth[rng.random(n) < void] = -1
    return marginals, truth


def total_loss(objective, images):
    return objective.loss(sum(objective.measure(q, y) for q, y in images))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_equals_differences(name, weighted, rng):
    images = [problem(rng), problem(rng, n=35)]
    weight = rng.random(4) + 0.1 if weighted else np.ones(4)
    objective = make_objective(name, weight)
    sums = sum(objective.measure(q, y) for q, y in images)
    for which, (marginals, truth) in enumerate(images):
        gradient = objective.gradient(marginals, truth, sums)
        for i, label in zip(rng.integers(0, len(truth), 25), rng.integers(0, 4, 25), strict=True):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [(q.copy(), y) for q, y in images]
                moved[which][0][i, label] += step
                sides.append(total_loss(objective, moved))
            expected = (sides[0] - sides[1]) / 2e-5
            assert gradient[i, label] == pytest.approx(expected, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_void_pixels_do_not_count(name, rng):
    marginals, truth = problem(rng)
    objective = make_objective(name, np.ones(4))
    known = truth >= 0
    whole = objective.measure(marginals, truth)
    np.testing.assert_allclose(whole, objective.measure(marginals[known], truth[known]))
    gradient = objective.gradient(marginals, truth, whole)
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_certain_and_correct_marginals_have_no_loss(name, rng):
    truth = rng.integers(0, 3, 50)
    objective = make_objective(name, np.ones(3))
    loss = objective.loss(objective.measure(np.eye(3, dtype=np.float32)[truth], truth))
    assert loss == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("name", "score"), [("iou", "mean_iou"), ("dice", "mean_dice")])
def test_certain_marginals_have_the_score_of_their_labels(name, score, rng):
    truth, found = rng.integers(0, 3, (2, 200))
    objective = make_objective(name, np.ones(3))
    loss = objective.loss(objective.measure(np.eye(3, dtype=np.float32)[found], truth))
    table = confusion_table(truth[np.newaxis], found[np.newaxis])
    assert 1 - loss == pytest.approx(getattr(table, score)(), abs=1e-6)


def test_log_likelihood_is_the_mean_of_logarithms(rng):
    marginals, truth = problem(rng, void=0.0)
    objective = make_objective("log_likelihood", np.ones(4))
    expected = -np.log(marginals[np.arange(60), truth]).mean()
    assert objective.loss(objective.measure(marginals, truth)) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["iou", "dice"])
def test_a_class_that_the_batch_lacks_is_left_out(name, rng):
    marginals, truth = problem(rng, n_labels=3)
    wide = np.hstack([marginals * 0.9, np.full((60, 1), 0.1)])
    objective = make_objective(name, np.ones(4))
    sums = objective.measure(wide, truth)
    hits, sizes = objective.slopes(sums)
    assert hits[3] == sizes[3] == 0
    assert np.isfinite(objective.loss(sums))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_image_without_known_pixels_gives_no_gradient(name, rng):
    marginals = problem(rng)[0]
    objective = make_objective(name, np.ones(4))
    truth = np.full(60, -1)
    sums = objective.measure(marginals, truth)
    assert np.isfinite(objective.loss(sums))
    assert (objective.gradient(marginals, truth, sums) == 0).all()
