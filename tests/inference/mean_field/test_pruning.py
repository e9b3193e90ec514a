"""Pruned labels have small marginals, and the bound on the change holds."""

import numpy as np
import pytest

from hybridseg import DenseCRF, Scene
from hybridseg.inference.mean_field.pruning import certify


def with_absent_labels(unary, margins):
    """Add labels that cost at least ``margins`` more than the best label at every pixel."""
    best = unary.min(axis=-1, keepdims=True)
    noise = np.random.default_rng(5).random((*unary.shape[:-1], len(margins))) * 3
    noise.reshape(-1, len(margins))[7] = 0  # here the costs equal the margins
    return np.concatenate([unary, best + noise + np.asarray(margins)], axis=-1).astype(np.float32)


@pytest.mark.parametrize("eps", [1e-2, 1e-4])
@pytest.mark.parametrize("matrix", [False, True], ids=["potts", "matrix"])
def test_pruned_labels_stay_below_eps_at_every_iteration(unary_and_image, model, eps, matrix, rng):
    margins = np.array([2.0, 5.0, 9.6, 12.0, 60.0, 200.0])
    unary = with_absent_labels(unary_and_image[0], margins)
    compatibility = "potts"
    if matrix:
        compatibility = rng.random((10, 10))
        compatibility = compatibility + compatibility.T
    result = model.mean_field(unary, prune=eps, compatibility=compatibility)
    assert set(range(4)).isdisjoint(result.pruned)
    assert 9 in result.pruned
    assert 4 not in result.pruned
    for n_iter in range(8):
        full = model.mean_field(unary, n_iter=n_iter, compatibility=compatibility).marginals
        assert full[..., list(result.pruned)].max() <= eps
    assert (result.marginals[..., list(result.pruned)] == 0).all()
    np.testing.assert_allclose(result.marginals.sum(axis=-1), 1, atol=1e-5)


def test_the_certificate_keeps_labels_up_to_its_threshold():
    gaps = np.array([0.0, 6.0, 6.94, 7.0])
    unary = np.array([gaps, gaps + np.array([0, 3, 3, 3])], np.float32)
    eps, reach = 1e-3, 40.0
    assert gaps[2] < -np.log(eps) + reach * eps < gaps[3]
    found = certify(unary, 1 - np.eye(4), reach, eps, 0)
    assert found.kept.tolist() == [0, 1, 2]
    assert found.pruned.tolist() == [3]
    assert found.bound == pytest.approx(np.exp(-7.0 + reach * eps), rel=1e-4)
    assert certify(unary, 1 - np.eye(4), 0.0, eps, 0).kept.tolist() == [0, 1]
    only = certify(unary[:, :1], np.zeros((1, 1)), reach, eps, 3)
    assert (only.kept.tolist(), only.bound) == ([0], 0.0)


@pytest.mark.parametrize("weights", [(0.3, 0.5), (0.5, 1.2)])
def test_the_bound_of_pruning_holds(unary_and_image, model, weights):
    unary = with_absent_labels(unary_and_image[0], [9.5, 9.5, 9.5, 11.0])
    options = dict(zip(("spatial_weight", "bilateral_weight"), weights, strict=True))
    for n_iter in (0, 1, 3, 10):
        result = model.mean_field(unary, prune=1e-4, n_iter=n_iter, **options)
        full = model.mean_field(unary, n_iter=n_iter, **options)
        assert result.pruned == (4, 5, 6, 7)
        assert result.prune_bound < 0.05
        assert np.abs(result.marginals - full.marginals).max() <= result.prune_bound


def test_pruning_changes_little_on_a_photograph(unary_and_image, model):
    unary = with_absent_labels(unary_and_image[0], [10.0] * 17)
    full = model.mean_field(unary).marginals
    pruned = model.mean_field(unary, prune=1e-4)
    assert len(pruned.pruned) == 17
    assert np.abs(pruned.marginals - full).max() < 5e-3
    assert (pruned.marginals.argmax(-1) == full.argmax(-1)).mean() >= 0.995


def test_pruning_without_a_certificate_changes_nothing(unary_and_image, model):
    unary, _ = unary_and_image
    plain, pruned = model.mean_field(unary), model.mean_field(unary, prune=1e-6)
    assert (pruned.pruned, pruned.prune_bound) == ((), 0.0)
    np.testing.assert_array_equal(plain.marginals, pruned.marginals)


def test_pruning_looks_at_the_start(unary_and_image, model):
    unary = with_absent_labels(unary_and_image[0], [30.0])
    start = np.full(unary.shape, 0.2, np.float32)
    assert model.mean_field(unary, prune=1e-4).pruned == (4,)
    assert model.mean_field(unary, prune=1e-4, init=start).pruned == ()
    start[..., 4] = 0
    assert model.mean_field(unary, prune=1e-4, init=start).pruned == (4,)


def test_pruning_down_to_two_labels_and_to_one(unary_and_image, model):
    two = with_absent_labels(unary_and_image[0][..., :2], [20.0, 25.0])
    found = model.mean_field(two, prune=1e-6)
    assert found.pruned == (2, 3)
    np.testing.assert_allclose(
        found.marginals[..., :2], model.mean_field(two[..., :2]).marginals, atol=1e-6
    )
    one = with_absent_labels(unary_and_image[0][..., :1], [20.0, 25.0])
    np.testing.assert_array_equal(model.mean_field(one, prune=1e-6).marginals[..., 0], 1)


def test_the_estimator_prunes(unary_and_image):
    unary = with_absent_labels(unary_and_image[0], [30.0])
    scene = Scene.from_logits(unary_and_image[1], -unary)
    found = DenseCRF(prune=1e-4).predict_proba([scene])[0]
    assert found[..., 4].max() < 1e-11  # costs are cut at that probability
    np.testing.assert_allclose(found, DenseCRF().predict_proba([scene])[0], atol=1e-3)
