"""Costs of labels that occur: sums, expectations and derivatives, against loops and differences."""

from fractions import Fraction

import numpy as np
import pytest

from hybridseg.pairwise import Energy, LabelCosts
from hybridseg.pairwise.higher_order.presence import (
    PresenceCosts,
    as_presence_costs,
    expected_presence_cost,
    presence_gradient,
    presence_messages,
)
from tests.oracles import energy as oracle


class Pairs:
    """A term of the user's own: a matrix of costs."""

    def __init__(self, costs):
        self.costs = costs

    def label_set_costs(self, n_labels):
        return self.costs


def random_costs(rng, n_labels, dtype=float):
    costs = rng.integers(-9, 20, (n_labels, n_labels)) if dtype is int else None
    costs = rng.normal(1, 2, (n_labels, n_labels)) if costs is None else costs
    return np.triu(costs) + np.triu(costs, 1).T


def costs_of(matrix):
    return PresenceCosts.of(None, [Pairs(matrix)], len(matrix))


def some_rows(rng, n_sites=6, n_labels=4, certain=()):
    """Marginals in float64; the sites ``certain`` surely have label 1."""
    rows = rng.dirichlet(np.ones(n_labels), n_sites)
    for site in certain:
        rows[site] = np.eye(n_labels)[1]
    return rows


def slope(function, rows, step=1e-6):
    """The derivative by every entry, by differences that stay below 1."""
    found = np.zeros(rows.shape)
    for place in np.ndindex(*rows.shape):
        low, high = rows.copy(), rows.copy()
        low[place] = max(0.0, rows[place] - step)
        high[place] = min(1.0, rows[place] + step)
        found[place] = (function(high) - function(low)) / (high[place] - low[place])
    return found


@pytest.mark.parametrize("dtype", [int, float])
def test_the_cost_of_a_set_is_that_of_its_labels_and_pairs(rng, dtype):
    matrix = random_costs(rng, 5, dtype)
    costs = costs_of(matrix)
    for _ in range(20):
        labels = rng.integers(0, 5, 3)
        found = costs.of_set(np.unique(labels))
        assert isinstance(found, dtype)
        assert found == pytest.approx(oracle.cost_of_set(labels, matrix), rel=1e-12)
    assert costs.sum == pytest.approx(np.triu(matrix).sum())


def test_terms_and_label_costs_are_added_up(rng):
    one, other = random_costs(rng, 3, int), random_costs(rng, 3)
    own = np.array([3, 1, 2])
    found = PresenceCosts.of(own, [Pairs(one), LabelCosts([1, 2, 3], 2)], 3)
    assert found.single.dtype == found.joint.dtype == np.int64
    np.testing.assert_array_equal(found.single, own + one.diagonal() + [2, 4, 6])
    found = PresenceCosts.of(own, [Pairs(one), Pairs(other)], 3)
    assert found.single.dtype == found.joint.dtype == np.float64
    np.testing.assert_allclose(np.diag(found.single) + found.joint, one + other + np.diag(own))
    mixed = PresenceCosts.of(own, [Pairs(other)], 3)
    assert mixed.single.dtype == mixed.joint.dtype == np.float64
    assert PresenceCosts.of(own, [Pairs(np.eye(3))], 3).joint is None
    assert PresenceCosts.of(None, [], 3) is None
    assert PresenceCosts.of(own, [], 3).single is own


def test_integers_are_added_exactly():
    big = 2**62
    matrix = np.array([[big, big - 1], [big - 1, 3]])
    costs = costs_of(matrix)
    assert costs.of_set(np.array([0, 1])) == 2 * big - 1 + 3
    with pytest.raises(ValueError, match=r"Pairs.label_set_costs\(n_labels\) and other label cost"):
        PresenceCosts.of(np.array([big, 0]), [Pairs(matrix)], 2)
    total = Energy(np.zeros((1, 2, 2), int), [Pairs(matrix)]).energy([[0, 1]])
    assert total == float(Fraction(2 * big + 2))


def test_sums_of_floats_that_overflow_are_refused():
    with pytest.raises(ValueError, match=r"added to other label costs, holds NaN or infinite"):
        PresenceCosts.of(np.array([1e308]), [Pairs([[1.5e308]])], 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], r"Pairs.label_set_costs\(n_labels\) has shape \(2,\); expected \(2, 2\)"),
        (np.ones((3, 3)), r"has shape \(3, 3\); expected \(2, 2\)"),
        ([[0, 1], [2, 0]], r"\[0, 1\]=1 but .*\[1, 0\]=2; expected a symmetric matrix"),
        ([[0, np.nan], [np.nan, 0]], "holds NaN or infinite"),
        ([["a", "b"], ["c", "d"]], "has dtype <U1; expected real costs"),
    ],
)
def test_matrices_that_do_not_fit_are_named(given, message):
    energy = Energy(np.zeros((2, 3, 2)), [Pairs(given)])
    with pytest.raises((TypeError, ValueError), match=message):
        energy.energy(np.zeros((2, 3), int))


def test_matrices_that_are_symmetric_but_for_rounding_become_symmetric():
    given = np.array([[0.0, 1.0], [1.0 + 1e-9, 0.0]])
    found = as_presence_costs(given, "costs")
    assert found[0, 1] == found[1, 0] == pytest.approx(1.0)
    assert given[0, 1] == 1.0
    assert as_presence_costs([[1e308]], "costs") == 1e308


def test_messages_of_label_costs_equal_the_products(rng):
    marginals = rng.dirichlet(np.ones(4), 7).astype(np.float32)
    marginals[2] = [1, 0, 0, 0]
    single = np.array([3.0, 1.0, -2.0, 5.0])
    costs = PresenceCosts(single)
    found = presence_messages(marginals, costs)
    expected = oracle.label_cost_messages(marginals, single)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    marginals[4] = [1, 0, 0, 0]
    assert (presence_messages(marginals, costs)[:, 0] == 0).all()
    many = np.full((100_000, 2), 0.5, np.float32)
    assert (presence_messages(many, PresenceCosts(np.array([1e6, 1e6]))) == 0).all()


@pytest.mark.parametrize("certain", [(), (2,), (0, 3), (0, 3, 5)])
def test_messages_are_the_derivative_of_the_expected_cost(rng, certain):
    costs = costs_of(random_costs(rng, 4))
    rows = some_rows(rng, certain=certain)
    expected = slope(lambda q: expected_presence_cost(q, costs), rows)
    np.testing.assert_allclose(presence_messages(rows, costs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_sites", [1, 2, 6])
@pytest.mark.parametrize("certain", [(), (0,), (0, 1), (0, 3, 5)])
@pytest.mark.parametrize("with_pairs", [False, True])
def test_the_gradient_of_messages_is_that_of_differences(rng, n_sites, certain, with_pairs):
    matrix = random_costs(rng, 4)
    costs = costs_of(matrix if with_pairs else np.diag(matrix.diagonal()))
    rows = some_rows(rng, n_sites, certain=[site for site in certain if site < n_sites])
    slopes = rng.normal(0, 1, rows.shape)

    def told(q):  # in float64, by the oracle
        present = 1 - (1 - q).prod(axis=0)
        joint = 0 if costs.joint is None else costs.joint @ present
        return (slopes * oracle.label_cost_messages(q, costs.single + joint)).sum()

    found = presence_gradient(rows, slopes, costs)
    np.testing.assert_allclose(found, slope(told, rows), rtol=1e-4, atol=1e-5)
    assert n_sites == 1 or np.abs(found).max() > 0.01


def test_near_certain_sites_keep_their_gradient(rng):
    """Probabilities of absence near the rounding of float32 lose no accuracy."""
    rows = np.array([[1 - 2.0**-24, 2.0**-24], [0.3, 0.7], [0.25, 0.75]])
    costs = PresenceCosts(np.array([2.0, 0.0]))
    slopes = rng.normal(0, 1, rows.shape)
    found = presence_gradient(rows.astype(np.float32), slopes, costs)[:, 0]
    least = 2.0**-24
    expected = -2 * np.array(
        [
            slopes[1, 0] * 0.75 + slopes[2, 0] * 0.7,
            slopes[0, 0] * 0.75 + slopes[2, 0] * least,
            slopes[0, 0] * 0.7 + slopes[1, 0] * least,
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("n_labels", [2, 3])
def test_the_expected_cost_is_at_least_the_true_mean_if_no_pair_is_rewarded(rng, n_labels):
    labelings = oracle.every_labeling((5,), n_labels)
    for _ in range(10):
        matrix = np.abs(random_costs(rng, n_labels))
        every = np.array([oracle.cost_of_set(labels, matrix) for labels in labelings])
        rows = rng.dirichlet(np.full(n_labels, 0.3), 5)
        chances = rows[np.arange(5), labelings].prod(axis=1)
        found = expected_presence_cost(rows, costs_of(matrix))
        assert found >= chances @ every - 1e-9
        alone = costs_of(np.diag(matrix.diagonal()))
        mean = chances @ [oracle.cost_of_set(y, np.diag(matrix.diagonal())) for y in labelings]
        assert expected_presence_cost(rows, alone) == pytest.approx(mean)
        sure = np.eye(n_labels)[labelings[3]]
        assert expected_presence_cost(sure, costs_of(matrix)) == pytest.approx(every[3])
