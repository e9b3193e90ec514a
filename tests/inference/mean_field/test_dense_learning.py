"""The parameters of a dense CRF as a vector: names, limits, gradients."""

import numpy as np
import pytest

from hybridseg import DenseCRF
from hybridseg.inference.learned import Examples
from hybridseg.inference.mean_field.parameters import PARTS
from hybridseg.learning import Learner
from hybridseg.learning.learner import _Work
from hybridseg.pairwise import FeatureKernel
from tests.inference.learning_problems import scenes


def work_of(crf, X, y, n_labels=3):
    learner = crf.learn
    examples = Examples(X, y, np.arange(n_labels), learner)
    model = crf._learnable(examples, learner)
    return _Work(learner, model, len(X), n_labels), model


def blue(colors, spacing):
    return colors[..., :1] / 30


@pytest.mark.parametrize("objective", ["iou", "dice", "log_likelihood"])
@pytest.mark.parametrize("valid", [False, True])
def test_gradient_equals_differences(valid, objective, rng):
    """Widths apart, whose loss has steps: see test_dense_gradient."""
    X, y = scenes(2, shape=(24, 30), valid=valid)
    what = ("weights", "compatibility", "bias")
    crf = DenseCRF(
        kernels=(FeatureKernel(1.5, blue),),
        learn=Learner(what, objective=objective, random_state=0),
    )
    work, _ = work_of(crf, X, y)
    point = work.best_start(work.everything)
    point += rng.standard_normal(len(point)) * 0.2
    gradient = work.evaluate(point, work.everything)[1]
    assert len(point) == 1 + 3 + 3 + 3 + 3
    for k in range(len(point)):
        step = 5e-3 * (np.arange(len(point)) == k)
        sides = [work.evaluate(point + s * step, work.everything)[0] for s in (1, -1)]
        assert gradient[k] == pytest.approx((sides[0] - sides[1]) / 1e-2, rel=0.03, abs=2e-4)


def test_the_gradient_of_widths_descends():
    """The loss has steps where points change their simplex; on average the gradient leads down."""
    X, y = scenes(3)
    crf = DenseCRF(
        spatial_weight=1.0, bilateral_weight=3.0, spatial_width=3.0, bilateral_width=3.0,
        bilateral_color=60.0, learn=Learner(("widths",), random_state=0),
    )  # fmt: skip
    work, model = work_of(crf, X, y)
    point = model.vector(model.first)
    before, gradient = work.evaluate(point, work.everything)
    step = np.zeros_like(point)
    step[3:6] = -0.2 * gradient[3:6] / np.abs(gradient[3:6]).max()
    assert work.evaluate(point + step, work.everything)[0] < before


@pytest.mark.parametrize("what", ["weights", "all", PARTS])
def test_a_vector_keeps_the_values(what, rng):
    X, y = scenes(1)
    crf = DenseCRF(learn=Learner(what, random_state=0))
    _, model = work_of(crf, X, y)
    start = model.vector(model.first)
    point = start + rng.standard_normal(len(start)) * 0.3
    again = model.vector(model.unpack(point))
    np.testing.assert_allclose(again, point, rtol=1e-6, atol=1e-6)
    matrix = model.unpack(point).compatibility
    np.testing.assert_allclose(matrix, matrix.T)
    assert (matrix >= 0).all()
    assert (np.diag(matrix) == 0).all()


def test_strength_zero_changes_no_label_and_one_changes_no_parameter(rng):
    X, y = scenes(1)
    crf = DenseCRF(learn=Learner(PARTS, random_state=0))
    _, model = work_of(crf, X, y)
    start = model.vector(model.first)
    point = start + rng.standard_normal(len(start)) * 0.3
    example = model.example(0, True)
    none = model.predict(model.weakened(point, 0.0), example)
    np.testing.assert_array_equal(none, example.costs.argmin(axis=1))
    assert model.values(model.weakened(point, 0.0))["bilateral_weight"] == 0
    np.testing.assert_allclose(model.weakened(point, 1.0), point, rtol=1e-6, atol=1e-6)
    changed = model.predict(point, example)
    assert (changed != none).any()


def test_a_kernel_of_weight_zero_remains_without_weight():
    X, y = scenes(2)
    crf = DenseCRF(spatial_weight=0.0, learn=Learner("all", random_state=0, max_iter=3))
    crf.fit(X, y)
    assert crf.params_["spatial_weight"] == 0


def test_all_starts_move_the_marginals():
    X, y = scenes(1)
    crf = DenseCRF(learn=Learner("all", random_state=0))
    _, model = work_of(crf, X, y)
    example = model.example(0, False)
    for start in model.starts():
        tape = model.record(start, example).tape
        assert np.abs(tape.marginals[-1] - tape.marginals[0]).max() > 0.05


@pytest.mark.parametrize("what", [("weight",), (), ("weights", "angle")])
def test_unknown_names_are_refused(what):
    X, y = scenes(2)
    with pytest.raises(ValueError, match="expected 'weights', 'all', or some of"):
        DenseCRF(learn=what).fit(X, y)
