"""Costs, probabilities and logits convert to each other with the stated accuracy."""

import numpy as np
import pytest

from hybridseg.scene.costs import (
    MIN_PROBABILITY,
    RegionCosts,
    costs_from_logits,
    costs_from_proba,
    ends_in,
    proba_from_costs,
)


@pytest.fixture
def proba(rng):
    return (rng.dirichlet(np.ones(4), (5, 6)) * 0.99 + 0.0025).astype(np.float32)


def test_probabilities_come_back(proba):
    costs = costs_from_proba(proba)
    assert costs.dtype == np.float32
    np.testing.assert_allclose(costs, -np.log(proba), rtol=1e-5)
    np.testing.assert_allclose(proba_from_costs(costs), proba, atol=1e-6)


def test_no_probability_is_so_small_that_nothing_overrules_it():
    costs = costs_from_proba([[0.0, 1.0]])
    assert MIN_PROBABILITY == 1e-4
    assert costs[0, 0] == pytest.approx(-np.log(1e-4))
    assert costs_from_proba([[0.0, 1.0]], minimum=1e-12)[0, 0] == pytest.approx(27.631021)
    above = costs_from_proba([[2 * MIN_PROBABILITY, 1.0]])
    assert above[0, 0] == pytest.approx(-np.log(2 * MIN_PROBABILITY))


@pytest.mark.parametrize("shift", [0.0, 80.0, -500.0])
def test_logits_are_costs_up_to_a_constant_and_of_a_sum_of_one(rng, shift):
    logits = rng.normal(0, 3, (5, 6, 4)).astype(np.float32) + np.float32(shift)
    costs = costs_from_logits(logits)
    np.testing.assert_allclose(np.exp(-costs).sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.ptp(costs + logits, axis=-1), 0, atol=1e-3)
    np.testing.assert_allclose(costs_from_logits(-costs), costs, atol=1e-5)


def test_numbers_of_any_size_stay_finite():
    extreme = np.array([[3e38, -3e38, 0.0], [-3e38, -3e38, -3e38]], np.float32)
    costs = costs_from_logits(extreme)
    assert np.isfinite(costs).all()
    np.testing.assert_allclose(proba_from_costs(costs), [[1, 0, 0], [1 / 3] * 3], atol=1e-6)
    np.testing.assert_allclose(proba_from_costs(extreme), [[0, 1, 0], [1 / 3] * 3], atol=1e-6)
    for broken in (np.nan, np.inf):
        with pytest.raises(ValueError, match="logits holds NaN or infinite values; the network"):
            costs_from_logits([[0.0, broken]])
        with pytest.raises(ValueError, match="proba holds NaN or infinite values; the model"):
            costs_from_proba([[0.0, broken]])


def test_the_kind_of_scores_is_recognized(rng, proba):
    logits = rng.normal(0, 3, (40, 50, 3))
    assert ends_in(logits) is None
    assert ends_in(proba) == "proba"
    assert ends_in(np.log(proba)) is None
    assert ends_in(proba.astype(np.float16)) == "proba"
    assert ends_in(1 / (1 + np.exp(-4 * logits))) == "sigmoid"
    assert ends_in(0.3 + 0.4 * rng.random((40, 50, 3))) is None
    assert ends_in((logits > 0).astype(float)) is None  # integers, whose sum is not 1
    assert ends_in(np.empty((0, 3))) is None
    assert ends_in(1 + proba) is None
    assert ends_in(proba - 0.1) is None


def test_one_wrong_pixel_shows_that_scores_are_no_probabilities(proba):
    broken = proba.copy()
    broken[2, 3] += 0.05
    assert ends_in(broken) is None


@pytest.mark.parametrize(("off", "kind"), [(0.008, "proba"), (-0.008, "proba"), (0.012, None)])
def test_sums_of_a_softmax_are_one_within_a_percent(off, kind):
    scores = np.full((4, 5, 2), 0.5)
    scores[0, 0, 0] += off
    assert ends_in(scores) == kind


def test_one_column_of_ones_is_no_softmax_and_numbers_near_one_end_no_sigmoid(rng):
    assert ends_in(np.ones((9, 1))) is None
    near = 0.04 * rng.random((40, 50, 2))
    assert ends_in(near + 1e-3) is None
    assert ends_in(1 - near) is None
    both = np.where(rng.random((40, 50, 2)) < 0.5, near + 1e-3, 1 - near)
    assert ends_in(both) == "sigmoid"
    assert ends_in(np.where(rng.random((40, 50, 2)) < 0.6, 0.5, both)) is None
    both[0, 0] = 0.5, 1.009  # 16 bit floats may exceed 1
    assert ends_in(both) == "sigmoid"
    for beyond in (1.011, -0.001):
        both[0, 0] = 0.5, beyond
        assert ends_in(both) is None


def test_regions_spread_over_their_pixels(rng):
    regions = rng.integers(0, 3, (4, 5)).astype(np.int32)
    costs = rng.random((3, 2), np.float32)
    kept = RegionCosts(regions, costs)
    for place in np.ndindex(4, 5):
        np.testing.assert_array_equal(kept.pixels()[place], costs[regions[place]])
    assert kept.nbytes == 4 * 5 * 4 + 3 * 2 * 4
