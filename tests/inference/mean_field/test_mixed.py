"""Sweeps of mixed energies without edges equal softmax updates."""

import numpy as np
import pytest

from hybridseg.inference.mean_field.mixed import CliqueMessages, mixed_sweeps
from tests.oracles import cliques as oracle_of_cliques
from tests.pairwise.higher_order.clique_problems import random_cliques


def test_without_edges_each_site_follows_its_messages(rng):
    rows = rng.normal(0, 1, (6, 3)).astype(np.float32)
    told = rng.normal(0, 1, (6, 3)).astype(np.float32)
    marginals, changes = mixed_sweeps(
        *(rows, [], (6,), np.zeros((0, 0), np.float32), lambda _: told),
        n_iter=60,
        tol=0.0,
        damping=0.5,
        start=None,
    )
    expected = np.exp(-(rows + told).astype(np.float64))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(marginals, expected, atol=1e-6)
    np.testing.assert_allclose(changes[1], changes[0] / 2, rtol=1e-3)  # half is kept


@pytest.mark.parametrize("weighted", [False, True])
def test_the_messages_of_cliques_are_those_of_the_best_auxiliary_variables(rng, weighted):
    cliques = random_cliques(rng, 12, 6, float, most=1.0, weighted=weighted)
    marginals = rng.dirichlet(np.ones(4), 12).astype(np.float32)
    found = CliqueMessages.of(cliques, 12).send(marginals)
    expected = oracle_of_cliques.messages(marginals, cliques)
    found, expected = (x - x.mean(axis=1, keepdims=True) for x in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    twice = CliqueMessages.of(cliques.scaled(2.0), 12).send(marginals)
    np.testing.assert_allclose(CliqueMessages.of(cliques, 12).send(marginals, 2.0), twice)


def test_the_messages_of_cliques_are_the_slope_of_their_free_energy(rng):
    cliques = random_cliques(rng, 9, 5, float, most=1.0, weighted=True)
    messages = CliqueMessages.of(cliques, 9)
    marginals = rng.dirichlet(np.ones(3), 9)
    told = messages.send(marginals.astype(np.float32))
    for i, label in [(0, 0), (4, 2), (8, 1)]:
        step = np.zeros((9, 3))
        step[i, label] = 1e-5
        rise = messages.free_energy(marginals + step) - messages.free_energy(marginals - step)
        assert told[i, label] == pytest.approx(rise / 2e-5, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.0])
def test_the_gradient_of_the_messages_of_cliques_equals_differences(rng, factor):
    messages = CliqueMessages.of(random_cliques(rng, 9, 5, float, most=1.0, weighted=True), 9)
    marginals, given = rng.dirichlet(np.ones(3), 9), rng.normal(0, 1, (9, 3))

    def loss(marginals, factor):
        return float((messages.send(marginals, factor).astype(np.float64) * given).sum())

    by_marginals, by_factor = messages.send_back(marginals, given, factor)
    rise = loss(marginals, factor + 1e-3) - loss(marginals, factor - 1e-3)
    assert by_factor == pytest.approx(rise / 2e-3, rel=2e-3, abs=2e-3)
    for i, label in [(0, 0), (4, 2), (8, 1)]:
        step = np.zeros((9, 3))
        step[i, label] = 1e-3
        rise = loss(marginals + step, factor) - loss(marginals - step, factor)
        assert by_marginals[i, label] == pytest.approx(rise / 2e-3, rel=1e-2, abs=3e-3)


def test_the_sum_of_messages_is_bounded_by_slopes_and_weights(rng):
    cliques = random_cliques(rng, 12, 6, float, most=1.0, weighted=True)
    messages = CliqueMessages.of(cliques, 12)
    for site in range(12):
        own = cliques.site == site
        sums = (cliques.slope[cliques.clique] * cliques.weight)[own].sum()
        assert sums <= messages.largest * (1 + 1e-6)
