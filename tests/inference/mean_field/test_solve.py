"""Mean field of mixed energies: its equations, its bound, and its agreement with the presets."""

import numpy as np
import pytest

from hybridseg.inference import DenseModel, grid_mean_field, mean_field, solve_mean_field
from hybridseg.pairwise import (
    BilateralKernel,
    CliqueTerm,
    EdgeTerm,
    Energy,
    FeatureKernel,
    GaussianKernel,
    GridTerm,
    grid_weights,
)
from hybridseg.pairwise.edges import edge_groups, edge_list
from hybridseg.validation import Colors
from tests.oracles import cliques as clique_oracle
from tests.oracles import energy as oracle
from tests.oracles.dense import mean_field as dense_oracle
from tests.pairwise.higher_order.clique_problems import random_cliques

MATRIX = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.5], [2.0, 0.5, 0.0]])


def mixed(rng, shape=(3, 3), n_labels=3, **options):
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    unary = rng.normal(0, 1, (*shape, n_labels))
    terms = [
        GridTerm(0.6, contrast=60.0),
        GaussianKernel(0.7, 1.5),
        BilateralKernel(0.5, 3.0, 60.0),
    ]
    return Energy(unary, terms, image=image, **options)


def residual(energy, marginals):
    """The error of marginals in the mean-field equations, with the lattice's kernels."""
    sites, n_labels = energy.sites, energy.n_labels
    weights = energy.terms[0].edges(sites)
    edges = zip(*edge_list(edge_groups(weights, energy.shape), energy.shape), strict=True)
    kernels = [
        (k.weight, dense_oracle.normalized(dense_oracle.lattice_matrix(k.embed(sites.colors))))
        for k in energy.terms[1:]
    ]
    rows = marginals.reshape(-1, n_labels).astype(np.float64)
    matrix = np.asarray(energy.matrix, np.float64)
    costs = energy.unary.reshape(-1, n_labels)
    again = oracle.mean_field_update(rows, costs, edges, kernels, matrix, energy.label_costs)
    return np.abs(again - rows).max()


@pytest.mark.parametrize("label_costs", [None, [0.5, 2.0, 1.0]])
@pytest.mark.parametrize("compatibility", ["potts", MATRIX], ids=["potts", "matrix"])
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4), (20, 9)])
def test_fixed_points_obey_the_mean_field_equations(rng, shape, compatibility, label_costs):
    energy = mixed(rng, shape, compatibility=compatibility, label_costs=label_costs)
    found = solve_mean_field(energy, n_iter=2000, tol=1e-6)
    assert found.converged
    assert found.n_iter == len(found.changes)
    assert residual(energy, found.marginals) < 2e-5
    again = solve_mean_field(energy, n_iter=3, init=found.marginals)
    np.testing.assert_allclose(again.marginals, found.marginals, atol=1e-4)


@pytest.mark.parametrize("n_labels", [2, 3])
def test_the_free_energy_is_above_that_of_the_crf(rng, n_labels):
    """The method ``energy`` also gives each labeling the sum over all pairs."""
    energy = mixed(rng, n_labels=n_labels, label_costs=np.arange(1.0, n_labels + 1))
    pairs = oracle.grid_edges(energy.terms[0].edges(energy.sites), (3, 3))
    for kernel in energy.terms[1:]:
        features = kernel.embed(energy.sites.colors)
        matrix = kernel.weight * dense_oracle.normalized(dense_oracle.gaussian_matrix(features))
        places = list(np.ndindex(3, 3))
        pairs += [(places[i], places[j], matrix[i, j]) for j in range(9) for i in range(j)]
    labelings = oracle.every_labeling((3, 3), n_labels)
    every = oracle.energies(labelings, energy.unary, pairs, label_costs=energy.label_costs)
    some = slice(None, None, max(1, len(every) // 512))
    judged = [energy.energy(labels) for labels in labelings[some]]
    np.testing.assert_allclose(judged, every[some], rtol=1e-6)

    for n_iter in (0, 1, 200):
        marginals = solve_mean_field(energy, n_iter=n_iter).marginals
        free = oracle.free_energy(marginals, labelings, every)
        assert -oracle.log_partition(every) <= free


def test_label_costs_drop_a_label_that_few_want(rng):
    unary = rng.gumbel(0, 0.3, (9, 11, 3))
    unary[..., 2] += 12
    unary[4, 5:7, 2] -= 14
    for costs, kept in ((None, True), ([0.0, 0.0, 8.0], False)):
        found = solve_mean_field(Energy(unary, label_costs=costs), n_iter=100, tol=1e-5)
        assert (found.marginals[..., 2].max() > 0.5) == kept


def test_one_kind_of_terms_is_solved_as_by_the_functions(rng):
    image = rng.integers(0, 256, (12, 17, 3)).astype(np.uint8)
    unary = rng.normal(0, 1, (12, 17, 3))
    kernels = [GaussianKernel(3.0, 3.0), BilateralKernel(10.0, 80.0, 13.0)]
    found = solve_mean_field(Energy(unary, kernels, image=image), n_iter=4)
    np.testing.assert_array_equal(found.marginals, mean_field(unary, image, n_iter=4).marginals)
    found = solve_mean_field(Energy(unary, [GridTerm(2.0)], image=image), n_iter=4)
    expected = grid_mean_field(unary, grid_weights(image, weight=2.0), n_iter=4)
    np.testing.assert_array_equal(found.marginals, expected.marginals)
    assert found.changes == expected.changes


def test_a_mixture_in_which_one_kind_weighs_nothing_is_the_other(rng):
    energy = mixed(rng, (8, 9))
    grid, *kernels = energy.terms
    options = {"n_iter": 500, "tol": 1e-6}
    for terms, alone in (
        ([GridTerm(0.0), *kernels], kernels),
        ([grid, GaussianKernel(0.0, 2.0)], [grid]),
    ):
        found = solve_mean_field(energy.with_terms(terms), **options).marginals
        expected = solve_mean_field(energy.with_terms(alone), **options).marginals
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_mixed_edges_on_grid_list_and_regions_agree(rng):
    """An image as a region graph of its own pixels has the same fixed point."""
    image = rng.integers(0, 256, (5, 6)).astype(np.uint8)
    unary = rng.normal(0, 1, (5, 6, 2))
    terms = [GridTerm(0.8, connectivity=2), EdgeTerm(([0, 4], [29, 17], [0.5, 0.7]))]
    options = {"n_iter": 800, "tol": 1e-7}
    pixels = solve_mean_field(Energy(unary, terms, image=image), **options)
    regions = np.arange(30).reshape(5, 6)
    flat = Energy(unary.reshape(30, 2), terms, image=image, regions=regions)
    found = solve_mean_field(flat, **options)
    np.testing.assert_allclose(found.marginals, pixels.marginals.reshape(30, 2), atol=1e-5)


def test_seeds_are_certain(rng):
    seeds = np.full((6, 7), -1)
    seeds[2, 3], seeds[5, 6] = 1, 0
    image = rng.integers(0, 256, (6, 7)).astype(np.uint8)
    unary = rng.normal(0, 1, (6, 7, 2)) + np.array([0.0, 4.0])
    for terms in (
        [GridTerm(2.0)],
        [GaussianKernel(2.0, 2.0)],
        [GridTerm(1.0), GaussianKernel(2.0, 2.0)],
    ):
        energy = Energy(unary, terms, image=image, seeds=seeds, label_costs=None)
        found = solve_mean_field(energy).marginals
        assert found[2, 3, 1] == found[5, 6, 0] == 1
        free = solve_mean_field(Energy(unary, terms, image=image)).marginals
        assert found[2, 4, 1] > free[2, 4, 1]


def test_the_same_lattices_serve_other_weights_and_costs(rng):
    energy = mixed(rng, (9, 10))
    model = DenseModel.of_energy(energy)
    other = energy.with_terms([GridTerm(1.0), GaussianKernel(2.0, 1.5), *energy.terms[2:]])
    found = solve_mean_field(other, model=model)
    np.testing.assert_array_equal(found.marginals, solve_mean_field(other).marginals)
    with pytest.raises(ValueError, match="model has 2 kernels on .*energy has 1 on"):
        solve_mean_field(energy.with_terms(energy.terms[:2]), model=model)


def test_damping_keeps_the_fixed_point_of_dense_kernels(rng):
    energy = mixed(rng, (6, 7))
    dense = energy.with_terms(energy.terms[1:])
    plain = solve_mean_field(dense, n_iter=500, tol=1e-7).marginals
    damped = solve_mean_field(dense, n_iter=500, tol=1e-7, damping=0.4)
    assert damped.changes
    np.testing.assert_allclose(damped.marginals, plain, atol=2e-5)


def test_features_of_a_region_graph_are_pooled(rng):
    regions = np.kron(np.arange(6).reshape(2, 3), np.ones((3, 3), int))
    depth = rng.random((6, 9, 1))
    energy = Energy(
        rng.normal(0, 3, (6, 2)),
        [FeatureKernel(2.0, depth)],
        image=np.zeros((6, 9), np.uint8),
        regions=regions,
    )
    assert solve_mean_field(energy, n_iter=200, tol=1e-6).converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": 1.0}, "damping=1.0; expected a number >= 0 and < 1"),
        ({"n_iter": -1}, "n_iter=-1"),
        ({"tol": -1.0}, "tol=-1"),
        (
            {"prune": 0.1},
            "prune=0.1; expected None, because this energy has terms",
        ),
        ({"init": np.ones((3, 3, 2))}, r"init has shape \(3, 3, 2\)"),
    ],
)
def test_bad_options_are_named(rng, options, message):
    with pytest.raises(ValueError, match=message):
        solve_mean_field(mixed(rng), **options)


def test_init_and_costs_may_be_anything_where_not_valid(rng):
    valid = rng.random((3, 3)) < 0.6
    init = rng.dirichlet(np.ones(3), (3, 3))
    energy = mixed(np.random.default_rng(0), valid=valid)
    expected = solve_mean_field(energy, n_iter=2, init=init).marginals
    init[~valid] = np.nan
    found = solve_mean_field(energy, n_iter=2, init=init).marginals
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, solve_mean_field(energy, n_iter=2).marginals)
    everywhere = mixed(np.random.default_rng(0))
    with pytest.raises(ValueError, match="init"):
        solve_mean_field(everywhere, n_iter=2, init=init)


@pytest.mark.parametrize("term", [GridTerm(1.0, contrast=None), GaussianKernel(1.0, 1.5)])
@pytest.mark.parametrize("label_costs", [None, [1.0, 0.0, 0.5]])
@pytest.mark.parametrize("n_iter", [0, 1, 3])
def test_seeds_are_kept_with_initial_marginals(rng, term, label_costs, n_iter):
    seeds = np.full((3, 4), -1)
    seeds[1, 2], seeds[2, 0] = 2, 0
    unary, image = rng.normal(0, 1, (3, 4, 3)), np.zeros((3, 4), np.uint8)
    energy = Energy(unary, [term], image=image, seeds=seeds, label_costs=label_costs)
    init = np.full((3, 4, 3), 1 / 3)
    found = solve_mean_field(energy, n_iter=n_iter, init=init, damping=0.5).marginals
    np.testing.assert_allclose(found[1, 2], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(found[2, 0], [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("label_costs", [[-1e300, 0.0], [1e40, 1e40]])
def test_label_costs_beyond_float32_are_named(label_costs):
    with pytest.raises(ValueError, match="label_costs holds a number of size"):
        solve_mean_field(Energy(np.zeros((1, 2, 2)), label_costs=label_costs))


def test_a_model_of_another_mask_is_refused(rng):
    image, unary = rng.random((4, 5)), rng.random((4, 5, 2))
    valid = np.ones((4, 5), bool)
    kernels = [GaussianKernel(1.0, 1.0)]
    model = DenseModel.of_energy(Energy(unary, kernels, image=image))
    solve_mean_field(Energy(unary, kernels, image=image, valid=valid), model=model)
    valid[0] = False
    with pytest.raises(ValueError, match="another mask valid"):
        solve_mean_field(Energy(unary, kernels, image=image, valid=valid), model=model)


def test_the_free_energy_is_recorded_where_nothing_is_valid():
    nowhere = {"image": np.zeros((2, 2)), "valid": np.zeros((2, 2), bool)}
    energy = Energy(np.ones((2, 2, 2)), [GaussianKernel(1.0, 1.0)], **nowhere)
    assert solve_mean_field(energy, with_energy=True).energies == (0.0,)


class WritesMessages:
    def messages(self, sites, marginals):
        marginals[:] = 0
        return marginals


class WritesCost:
    def cost(self, sites, labels, matrix):
        labels[:] = 0
        return 0.0


class WritesEdges:
    def __init__(self, name):
        self.name = name

    def edges(self, sites):
        getattr(sites, self.name)[:] = 0
        return {(1, 0): np.ones((2, 4))}


class WritesFeatures:
    weight = 1.0

    def embed(self, colors, spacing):
        colors[:] = 0
        return colors.reshape(-1, 3)


class Pulls:
    """A term with given messages."""

    def __init__(self, messages):
        self.given = messages

    def messages(self, sites, marginals):
        return self.given


def judge(energy):
    return energy.energy(np.zeros(energy.shape, int))


def embed_alone(energy):
    return DenseModel.of(energy.image, kernels=energy.terms)


ZEROES_COLORS = FeatureKernel(1.0, lambda colors, spacing: colors.__imul__(0))


@pytest.mark.parametrize(
    ("use", "term"),
    [
        (solve_mean_field, WritesMessages()),
        (judge, WritesCost()),
        (solve_mean_field, WritesEdges("colors")),
        (judge, WritesEdges("valid")),
        (solve_mean_field, WritesFeatures()),
        (judge, ZEROES_COLORS),
        (embed_alone, ZEROES_COLORS),
    ],
)
def test_terms_cannot_write_into_what_they_receive(rng, use, term):
    """Neither into the arrays of a solver, nor into those of the user."""
    colors = rng.random((3, 4, 3), dtype=np.float32)
    valid = np.arange(12).reshape(3, 4) > 1
    before = colors.copy(), valid.copy()
    energy = Energy(rng.normal(0, 1, (3, 4, 2)), [term], image=Colors(colors), valid=valid)
    with pytest.raises(ValueError, match="read-only"):
        use(energy)
    np.testing.assert_array_equal(colors, before[0])
    np.testing.assert_array_equal(valid, before[1])


@pytest.mark.parametrize(
    ("terms", "options"),
    [
        ([EdgeTerm(([0, 1], [1, 2], [1e31, 1e31]))], {}),
        ([Pulls(np.array([[0, 0], [1e30, -1e30], [0, 0]]))], {}),
        ([], {"label_costs": [0.0, 1e30]}),
    ],
    ids=["edges", "messages", "label costs"],
)
def test_no_cost_overrules_a_seed(terms, options):
    seeds = np.array([0, 1, 0])
    with pytest.raises(ValueError, match="expected .*up to 1e|expected at most 1e"):
        solve_mean_field(Energy(np.zeros((3, 2)), terms, seeds=seeds, **options))


def test_no_weight_of_a_kernel_overrules_a_seed(rng):
    energy = mixed(rng, seeds=np.full((3, 3), 1))
    with pytest.raises(ValueError, match="a kernel's weight times the compatibility is 1e"):
        solve_mean_field(energy.with_terms([GaussianKernel(1e30, 1.5)]))


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4), (20, 9)])
@pytest.mark.parametrize("valid", [False, True])
def test_fixed_points_with_cliques_obey_the_mean_field_equations(rng, shape, valid):
    n = int(np.prod(shape))
    cliques = random_cliques(rng, n, 8, float, most=1.0, weighted=True)
    mask = rng.random(shape) < 0.8 if valid else None
    terms = [GridTerm(0.6, contrast=None), CliqueTerm(cliques)]
    energy = Energy(rng.normal(0, 1, (*shape, 3)), terms, valid=mask)
    found = solve_mean_field(energy, n_iter=2000, tol=1e-6)
    assert found.converged
    rows = found.marginals.reshape(n, 3).astype(np.float64)
    told = clique_oracle.messages(rows, energy.cliques)
    edges = zip(*edge_list(energy.edges, shape), strict=True)
    costs = energy.unary.reshape(n, 3) + told
    again = oracle.mean_field_update(rows, costs, edges, [], 1 - np.eye(3), None)
    np.testing.assert_allclose(again, rows, atol=2e-5)
    if mask is not None:
        np.testing.assert_allclose(found.marginals[~mask], 1 / 3, atol=1e-6)


def test_cliques_with_dense_kernels_seeds_and_one_label(rng):
    image = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    seeds = np.where(rng.random((6, 7)) < 0.2, rng.integers(0, 3, (6, 7)), -1)
    cliques = CliqueTerm(random_cliques(rng, 42, 20, float, most=1.0))
    terms = [BilateralKernel(0.5, 3.0, 60.0), cliques]
    energy = Energy(rng.normal(0, 1, (6, 7, 3)), terms, image=image, seeds=seeds)
    found = solve_mean_field(energy, n_iter=2000, tol=1e-6)
    assert found.converged
    certain = seeds >= 0
    np.testing.assert_allclose(found.marginals[certain], np.eye(3)[seeds[certain]], atol=1e-6)
    again = solve_mean_field(energy, n_iter=3, init=found.marginals)
    np.testing.assert_allclose(again.marginals, found.marginals, atol=1e-5)
    one = solve_mean_field(Energy(np.zeros((6, 7, 1)), [cliques]))
    np.testing.assert_array_equal(one.marginals, 1.0)


def test_cliques_beyond_float32_are_refused(rng):
    cliques = CliqueTerm(random_cliques(rng, 20, 5, float).scaled(1e36))
    unary = rng.normal(0, 1, (4, 5, 2))
    with pytest.raises(ValueError, match=r"cliques have slopes and weights whose sum at a site is"):
        solve_mean_field(Energy(unary, [cliques]))
