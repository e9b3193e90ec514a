"""The free energy equals sums over all labelings, and its trace never rises."""

import numpy as np
import pytest

from hybridseg.inference import (
    DenseModel,
    free_energy,
    grid_mean_field,
    mean_field,
    solve_mean_field,
)
from hybridseg.pairwise import (
    BilateralKernel,
    CliqueTerm,
    EdgeTerm,
    Energy,
    GaussianKernel,
    GridTerm,
)
from tests.oracles import cliques as clique_oracle
from tests.oracles import energy as oracle
from tests.oracles.dense import mean_field as dense_oracle
from tests.pairwise.higher_order.clique_problems import random_cliques

MATRIX = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.5], [2.0, 0.5, 0.0]])
KERNELS = [GaussianKernel(0.7, 1.5), BilateralKernel(0.5, 3.0, 60.0)]


def problem(rng, terms, shape=(3, 3), n_labels=3, **options):
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    return Energy(rng.normal(0, 1, (*shape, n_labels)), terms, image=image, **options)


def some_marginals(rng, energy):
    return rng.dirichlet(np.ones(energy.n_labels), energy.shape).astype(np.float32)


@pytest.mark.parametrize("compatibility", ["potts", MATRIX], ids=["potts", "matrix"])
@pytest.mark.parametrize("label_costs", [None, [0.5, 2.0, 1.0]])
def test_it_is_the_expected_energy_less_the_entropy(rng, label_costs, compatibility):
    options = {"label_costs": label_costs, "compatibility": compatibility}
    energy = problem(rng, [GridTerm(0.6, contrast=60.0)], **options)
    labelings = oracle.every_labeling((3, 3), 3)
    every = np.array([energy.energy(labels) for labels in labelings])
    marginals = some_marginals(rng, energy)
    expected = oracle.free_energy(marginals, labelings, every)
    assert free_energy(energy, marginals) == pytest.approx(expected, rel=1e-5)


def test_certain_marginals_have_the_energy_of_their_labels(rng):
    energy = problem(rng, [GridTerm(0.6)], label_costs=[0.5, 2.0, 1.0])
    labels = rng.integers(0, 3, (3, 3))
    assert free_energy(energy, np.eye(3)[labels]) == pytest.approx(energy.energy(labels), rel=1e-5)


def test_dense_kernels_count_each_pair_once_and_each_pixel_as_its_own_neighbor(rng):
    energy = problem(rng, KERNELS, shape=(6, 7), compatibility=MATRIX)
    marginals = some_marginals(rng, energy)
    rows = marginals.reshape(-1, 3).astype(np.float64)
    expected = (rows * (energy.unary.reshape(-1, 3) + np.log(rows))).sum()
    for kernel in KERNELS:
        lattice = dense_oracle.lattice_matrix(kernel.embed(energy.sites.colors))
        weights = kernel.weight * dense_oracle.normalized(lattice)
        expected += (weights * (rows @ MATRIX @ rows.T)).sum() / 2
    assert free_energy(energy, marginals) == pytest.approx(expected, rel=1e-4)
    model = DenseModel.of_energy(energy)
    assert free_energy(energy, marginals, model=model) == free_energy(energy, marginals)


def test_sites_that_are_not_valid_count_for_nothing(rng):
    valid = np.ones((5, 6), bool)
    valid[1:3, 2:5] = False
    energy = problem(
        rng, [GridTerm(0.6), *KERNELS], shape=(5, 6), valid=valid, label_costs=[1, 2, 3]
    )
    marginals = some_marginals(rng, energy)
    found = free_energy(energy, marginals)
    marginals[~valid] = [0.0, 0.0, 1.0]
    assert free_energy(energy, marginals) == found
    marginals[~valid] = np.nan
    assert free_energy(energy, marginals) == found


@pytest.mark.parametrize(
    "terms",
    [[GridTerm(0.8)], KERNELS, [GridTerm(0.8), *KERNELS], [GridTerm(0.8, connectivity=2)]],
    ids=["edges", "dense", "both", "diagonals"],
)
@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("tol", [0.0, 1e-3])
def test_the_trace_is_that_of_the_iterations_and_changes_nothing(rng, terms, n_labels, tol):
    energy = problem(rng, terms, shape=(7, 9), n_labels=n_labels)
    plain = solve_mean_field(energy, n_iter=6, tol=tol)
    found = solve_mean_field(energy, n_iter=6, tol=tol, with_energy=True)
    np.testing.assert_array_equal(found.marginals, plain.marginals)
    assert (found.n_iter, found.changes, plain.energies) == (plain.n_iter, plain.changes, ())
    assert len(found.energies) == found.n_iter + 1
    for n_iter, expected in enumerate(found.energies):
        marginals = solve_mean_field(energy, n_iter=n_iter).marginals
        assert free_energy(energy, marginals) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_the_trace_never_rises_where_neighbors_take_turns(rng, damping):
    energy = problem(rng, [GridTerm(1.5)], shape=(12, 15), n_labels=4)
    found = solve_mean_field(energy, n_iter=30, damping=damping, with_energy=True)
    assert (np.diff(found.energies) <= 1e-5 * abs(found.energies[0])).all()
    assert found.energies[-1] < found.energies[0]


def test_the_presets_have_the_trace_of_the_solver(rng):
    unary = rng.normal(0, 1, (6, 7, 3))
    image = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    grid = grid_mean_field(unary, [np.ones((5, 7)), np.ones((6, 6))], with_energy=True)
    terms = [EdgeTerm([np.ones((5, 7)), np.ones((6, 6))])]
    assert grid.energies == solve_mean_field(Energy(unary, terms), with_energy=True).energies
    dense = mean_field(unary, image, with_energy=True)
    kernels = [GaussianKernel(3.0, 3.0), BilateralKernel(10.0, 80.0, 13.0)]
    energy = Energy(unary, kernels, image=image)
    assert dense.energies == solve_mean_field(energy, with_energy=True).energies
    assert len(dense.energies) == 11


def test_the_trace_of_pruned_labels(rng):
    unary = rng.normal(0, 1, (6, 7, 3))
    unary[..., 2] += 40
    image = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    options = {"spatial_weight": 1.0, "bilateral_weight": 1.0, "with_energy": True}
    found = mean_field(unary, image, prune=1e-6, **options)
    assert found.pruned == (2,)
    np.testing.assert_allclose(found.energies, mean_field(unary, image, **options).energies, 1e-5)


class Pull:
    """A term that has messages only."""

    def messages(self, sites, marginals):
        return np.zeros_like(marginals)


def test_terms_without_an_expected_cost_are_refused(rng):
    energy = problem(rng, [GridTerm(1.0), Pull()])
    with pytest.raises(TypeError, match=r"the free energy needs .* but Pull has none"):
        free_energy(energy, some_marginals(rng, energy))
    with pytest.raises(TypeError, match="Pull has none"):
        solve_mean_field(energy, with_energy=True)
    with pytest.raises(ValueError, match="marginals has shape"):
        free_energy(problem(rng, []), np.ones((3, 3, 2)))


def test_a_model_of_another_energy_is_refused(rng):
    energy = problem(rng, KERNELS)
    for other in (problem(rng, KERNELS[:1]), problem(rng, KERNELS, shape=(4, 4))):
        with pytest.raises(ValueError, match=r"model has \d kernels on"):
            free_energy(energy, some_marginals(rng, energy), model=DenseModel.of_energy(other))


@pytest.mark.parametrize("label_costs", [None, [0.5, 2.0, 1.0]])
def test_cliques_count_with_the_best_distributions_of_their_variables(rng, label_costs):
    cliques = random_cliques(rng, 6, 2, float, most=1.0, weighted=True)
    terms = [GridTerm(0.6), CliqueTerm(cliques)]
    energy = problem(rng, terms, shape=(2, 3), label_costs=label_costs)
    labelings = oracle.every_labeling((2, 3), 3)
    plain = energy.with_terms(terms[:1])
    every = clique_oracle.extended_energies(
        labelings, np.array([plain.energy(labels) for labels in labelings]), cliques, 3
    )
    marginals = some_marginals(rng, energy)
    rows = marginals.reshape(6, 3).astype(np.float64)
    chances = rows[np.arange(6), labelings.reshape(-1, 6)].prod(axis=1)
    beliefs = clique_oracle.beliefs(rows, cliques)
    joint = chances[:, np.newaxis] * np.multiply.outer(beliefs[0], beliefs[1]).ravel()
    entropy = -sum((q * np.log(np.maximum(q, 1e-300))).sum() for q in (rows, beliefs))
    assert free_energy(energy, marginals) == pytest.approx(
        (joint * every).sum() - entropy, rel=1e-5
    )
    found = solve_mean_field(energy, n_iter=50, with_energy=True)
    assert found.energies[-1] >= -oracle.log_partition(every.ravel()) - 1e-6
    least = every.min(axis=1)  # over the variables: the energies of the labelings
    np.testing.assert_allclose(least, [energy.energy(labels) for labels in labelings], rtol=1e-5)


@pytest.mark.parametrize("damping", [None, 0.0, 0.5])
@pytest.mark.parametrize("others", [[], [GridTerm(1.5)]])
def test_the_trace_never_rises_with_cliques(rng, others, damping):
    cliques = random_cliques(rng, 180, 60, float, most=1.0)
    terms = [*others, CliqueTerm(cliques)]
    energy = problem(rng, terms, shape=(12, 15), n_labels=4)
    found = solve_mean_field(energy, n_iter=30, damping=damping, with_energy=True)
    assert (np.diff(found.energies) <= 1e-5 * abs(found.energies[0])).all()
    assert found.energies[-1] < found.energies[0]
    plain = solve_mean_field(energy, n_iter=30, damping=damping)
    np.testing.assert_array_equal(found.marginals, plain.marginals)
