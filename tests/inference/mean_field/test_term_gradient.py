"""Mean field of all terms that can be differentiated: fixed points, and gradients."""

import numpy as np
import pytest

from hybridseg.inference import solve_mean_field
from hybridseg.inference.mean_field.term_gradient import TermTape, times
from hybridseg.inference.mean_field.term_learning import messages_of
from hybridseg.pairwise import (
    BilateralKernel,
    CliqueTerm,
    EdgeTerm,
    Energy,
    GaussianKernel,
    GridTerm,
)
from hybridseg.pairwise.terms import scaled
from tests.pairwise.higher_order.clique_problems import random_cliques

UNEVEN = np.array([[0, 1.0, 0.4], [1, 0, 2], [0.4, 2, 0.3]])


class Curved:
    """Messages that mix the labels and the neighbors in a row, and are not linear."""

    def messages(self, sites, marginals):
        squares = seen(sites) * marginals**2
        return np.roll(squares, 1, axis=1) + 0.5 * squares[..., ::-1]

    def messages_gradient(self, sites, marginals, slopes):
        back = np.roll(slopes, -1, axis=1) + 0.5 * slopes[..., ::-1]
        return 2 * seen(sites) * marginals * back


def seen(sites):
    """1 at valid sites, 0 elsewhere."""
    return 1 if sites.counted is None else sites.counted[..., np.newaxis]


def problem(rng, kinds, *, shape=(7, 9), n_labels=3, valid=False, seeds=False):
    """An energy with some terms, and its terms as messages."""
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    mask = rng.random(shape) > 0.2 if valid else None
    fixed = np.where(rng.random(shape) < 0.1, 1, -1) if seeds else None
    n = int(np.prod(shape))
    ends = rng.permutation(n)[: 2 * (n // 4)].reshape(2, -1)
    terms = {
        "grid": GridTerm(0.7, connectivity=2),
        "list": EdgeTerm((*ends, rng.random(len(ends[0])))),
        "space": GaussianKernel(0.8, 2.0),
        "color": BilateralKernel(0.6, 4.0, 80.0),
        "cliques": CliqueTerm(random_cliques(rng, n, 20, float, most=1.0, weighted=True)),
        "own": Curved(),
    }
    unary = rng.normal(0, 1, (*shape, n_labels)).astype(np.float32)
    energy = Energy(unary, [terms[kind] for kind in kinds], image=image, valid=mask, seeds=fixed)
    return energy, [messages_of(term, energy) for term in energy.terms]


def tape_of(energy, messages, weights, matrix, costs, n_updates, keep_sums=True):
    rewards = matrix.max(axis=1, keepdims=True) - matrix
    seeds = None if energy.seeds is None else energy.seeds.ravel()
    return TermTape.record(
        messages, weights, rewards, costs, n_updates, seeds=seeds, keep_sums=keep_sums
    )


KINDS = [
    *[("grid",), ("list",), ("space", "color"), ("grid", "list", "color")],
    *[("cliques",), ("own",), ("grid", "cliques", "color", "own")],
]


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("known", [{}, {"valid": True, "seeds": True}])
@pytest.mark.parametrize("potts", [True, False])
def test_fixed_points_are_those_of_the_solver(kinds, known, potts, rng):
    energy, messages = problem(rng, kinds, **known)
    weights = rng.uniform(0.3, 1.0, len(kinds))
    matrix = 1.0 - np.eye(3) if potts else UNEVEN
    costs = energy.unary.reshape(-1, 3)
    tape = tape_of(energy, messages, weights, matrix, costs, 200)
    same = Energy(
        energy.unary,
        [scaled(term, weight) for term, weight in zip(energy.terms, weights, strict=True)],
        image=energy.image, compatibility=matrix, valid=energy.valid, seeds=energy.seeds,
    )  # fmt: skip
    expected = solve_mean_field(same, n_iter=200, tol=1e-7, damping=0.3).marginals.reshape(-1, 3)
    seen = slice(None) if energy.valid is None else energy.valid.ravel()
    np.testing.assert_allclose(tape.marginals[-1][seen], expected[seen], atol=2e-4)


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("known", [{}, {"valid": True, "seeds": True}])
@pytest.mark.parametrize("potts", [True, False])
def test_gradients_equal_differences(kinds, known, potts, rng):
    energy, messages = problem(rng, kinds, **known)
    weights = rng.uniform(0.3, 1.0, len(kinds))
    matrix = 1.0 - np.eye(3) if potts else UNEVEN
    costs = energy.unary.reshape(-1, 3)
    given = rng.standard_normal(costs.shape).astype(np.float32)
    if energy.valid is not None:
        given[~energy.valid.ravel()] = 0

    def loss(weights=weights, matrix=matrix, costs=costs):
        last = tape_of(energy, messages, weights, matrix, costs, 6).marginals[-1]
        return float(np.vdot(last.astype(np.float64), given))

    found = tape_of(energy, messages, weights, matrix, costs, 6).gradient(given)
    assert len(found.weights) == len(kinds)
    for k in range(len(kinds)):
        step = 1e-2 * (np.arange(len(kinds)) == k)
        expected = (loss(weights + step) - loss(weights - step)) / 2e-2
        assert found.weights[k] == pytest.approx(expected, rel=0.01, abs=5e-3)
    for a, b in [(0, 1), (1, 2), (1, 1)]:
        step = np.zeros((3, 3))
        step[a, b] = step[b, a] = 1e-2
        expected = (loss(matrix=matrix + step) - loss(matrix=matrix - step)) / 2e-2
        own = found.matrix[a, b] + (found.matrix[b, a] if a != b else 0)
        assert own == pytest.approx(expected, rel=0.01, abs=5e-3)
    direction = rng.standard_normal(costs.shape).astype(np.float32)
    step = np.float32(1e-2) * direction
    expected = (loss(costs=costs + step) - loss(costs=costs - step)) / 2e-2
    assert np.vdot(found.costs, direction) == pytest.approx(expected, rel=0.01, abs=1e-2)
    if energy.seeds is not None:
        assert not found.costs[energy.seeds.ravel() >= 0].any()


@pytest.mark.parametrize("kinds", [("grid",), ("list",), ("space",), ("color",)])
def test_messages_are_linear_and_returned_by_the_transpose(kinds, rng):
    _, (term,) = problem(rng, kinds, valid=True)
    one, other = rng.standard_normal((2, 63, 3)).astype(np.float32)
    np.testing.assert_allclose(
        term.send(one + 2 * other), term.send(one) + 2 * term.send(other), atol=1e-4
    )
    forth, back = np.vdot(term.send(one), other), np.vdot(one, term.send_back(other))
    assert forth == pytest.approx(back, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("n_updates", [0, 4])
def test_without_weight_or_update_the_costs_remain(n_updates, rng):
    energy, messages = problem(rng, ("grid", "color"))
    costs = energy.unary.reshape(-1, 3)
    weights = np.zeros(2) if n_updates else np.ones(2)
    tape = tape_of(energy, messages, weights, 1.0 - np.eye(3), costs, n_updates)
    for each in tape.marginals:
        np.testing.assert_allclose(each, tape.marginals[0], atol=1e-6)
    found = tape.gradient(np.ones_like(costs))
    np.testing.assert_allclose(found.costs, 0, atol=1e-6)
    assert not found.weights.any()


def test_products_with_multiples_of_the_identity_are_exact(rng):
    rows = rng.standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_array_equal(times(rows, np.eye(3, dtype=np.float32) * 2), rows * 2)
    matrix = rng.standard_normal((3, 3)).astype(np.float32)
    np.testing.assert_allclose(times(rows, matrix), rows @ matrix, rtol=1e-6)
