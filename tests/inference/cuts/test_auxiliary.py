"""Moves with cliques are the best of all moves, and two labels are solved exactly."""

import numpy as np
import pytest

from hybridseg.inference import solve_cuts
from hybridseg.inference.cuts.auxiliary import CliqueNodes, as_cut_cliques
from hybridseg.inference.cuts.moves import EnergyGraph, expand, swap
from hybridseg.pairwise import Cliques, CliqueTerm, EdgeTerm, Energy, GridTerm, SuperpixelCliques
from hybridseg.pairwise.edges import edge_list
from tests.inference.cuts.problems import case
from tests.oracles import cliques as clique_oracle
from tests.oracles import energy as oracle
from tests.pairwise.higher_order.clique_problems import random_cliques

STEPS = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))


def problem(seed, shape=(3, 3), n_labels=3, dtype=int, n_cliques=4, most=0.5, **options):
    """An energy with edges and cliques, and all labelings with their energies by loops."""
    rng = np.random.default_rng(seed)
    unary, weights = case(rng, shape, n_labels, dtype)
    weighted = bool(seed % 2)
    cliques = random_cliques(
        rng, int(np.prod(shape)), n_cliques, dtype, most=most, weighted=weighted
    )
    energy = Energy(unary, [EdgeTerm(weights), CliqueTerm(cliques)], **options)
    labelings = oracle.every_labeling(shape, n_labels)
    edges = oracle.grid_edges(weights, shape)
    rest = {key: options.get(key) for key in ("compatibility", "label_costs")}
    totals = oracle.energies(labelings, unary, edges, **rest)
    extra = [clique_oracle.cost(labels, cliques, n_labels) for labels in labelings]
    return energy, labelings, totals + np.array(extra)


def graph_of(energy):
    """The graph that solve_cuts makes, without its checks."""
    n = int(np.prod(energy.shape))
    graph = EnergyGraph.build(
        *edge_list(energy.edges, energy.shape), energy.unary.reshape(n, energy.n_labels)
    )
    graph = graph._replace(cliques=CliqueNodes.of(graph, energy.cliques))
    if energy.label_costs is None:
        return graph
    return graph._replace(costs_of_set=energy.presence_costs, counted=np.ones(n, bool))


@pytest.mark.parametrize("label_costs", [None, [3, 0, 7]])
@pytest.mark.parametrize("seed", range(8))
def test_every_expansion_is_the_best_of_all_expansions(seed, label_costs):
    energy, labelings, totals = problem(seed, label_costs=label_costs)
    graph = graph_of(energy)
    start = np.random.default_rng(seed).integers(0, 3, (3, 3))
    for alpha in range(3):
        reachable = ((labelings == start) | (labelings == alpha)).all(axis=(1, 2))
        moved = expand(graph, start.ravel().astype(np.int32), alpha)
        assert graph.energy(moved) == totals[reachable].min()
        assert energy.energy(moved.reshape(3, 3)) == graph.energy(moved)


@pytest.mark.parametrize("label_costs", [None, [3, 0, 7]])
@pytest.mark.parametrize("seed", range(6))
def test_every_swap_is_the_best_of_all_swaps(seed, label_costs):
    energy, labelings, totals = problem(seed, label_costs=label_costs)
    graph = graph_of(energy)
    start = np.random.default_rng(seed).integers(0, 3, (3, 3))
    for pair in ((0, 1), (0, 2), (1, 2)):
        free = np.isin(labelings, pair) & np.isin(start, pair)
        reachable = ((labelings == start) | free).all(axis=(1, 2))
        moved = swap(graph, start.ravel().astype(np.int32), *pair)
        assert graph.energy(moved) == totals[reachable].min()


@pytest.mark.parametrize("solver", ["numba", "pymaxflow"])
@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize("label_costs", [None, [3, 5]])
def test_two_labels_are_solved_exactly_for_any_cap(label_costs, dtype, solver):
    if solver == "pymaxflow":
        pytest.importorskip("maxflow")
    for seed, most in enumerate([0.2, 0.5, 0.8, 1.0, 0.4, 1.0]):
        energy, labelings, totals = problem(
            seed, (3, 4), 2, dtype, n_cliques=5, most=most, label_costs=label_costs
        )
        found = solve_cuts(energy, solver=solver)
        near = {"rel": 0 if dtype is int else 1e-9}
        assert found.energy == pytest.approx(totals.min(), **near)
        assert found.lower_bound == found.energy
        assert energy.energy(found.labels) == pytest.approx(found.energy, **near)
        (place,) = np.flatnonzero((labelings == found.labels).all(axis=(1, 2)))
        assert totals[place] == pytest.approx(found.energy, **near)


@pytest.mark.parametrize("solver", ["numba", "pymaxflow"])
@pytest.mark.parametrize("moves", ["expansion", "swap"])
@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize("options", [{}, {"label_costs": [3, 0, 7]}, {"compatibility": STEPS}])
def test_more_labels_lie_between_bound_and_start(options, dtype, moves, solver):
    if solver == "pymaxflow":
        pytest.importorskip("maxflow")
    for seed in range(4):
        energy, _, totals = problem(seed, (2, 4), dtype=dtype, **options)
        found = solve_cuts(energy, moves=moves, solver=solver)
        assert found.lower_bound - 1e-9 <= totals.min() <= found.energy + 1e-9
        assert (np.diff(found.energies) <= 0).all()
        assert found.converged
        near = {"rel": 0 if dtype is int else 1e-9}
        assert energy.energy(found.labels) == pytest.approx(found.energy, **near)


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("moves", ["expansion", "swap"])
def test_seeds_are_kept_against_strong_cliques(n_labels, moves):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        seeds = np.where(rng.random((3, 3)) < 0.3, rng.integers(0, n_labels, (3, 3)), -1)
        energy, labelings, totals = problem(seed, (3, 3), n_labels, seeds=seeds, n_cliques=6)
        strong = energy.with_terms([CliqueTerm(t.of.scaled(50)) for t in energy.terms[1:]])
        kept = ((labelings == seeds) | (seeds < 0)).all(axis=(1, 2))
        for each in (energy, strong):
            found = solve_cuts(each, moves=moves)
            assert (found.labels == seeds)[seeds >= 0].all()
        if n_labels == 2:
            assert solve_cuts(energy).energy == totals[kept].min()


def test_free_cliques_change_nothing(rng):
    unary, weights = case(rng, (5, 6), 3)
    plain = Energy(unary, [EdgeTerm(weights)])
    none = Cliques([0, 0, 1, 3, 5], [4, 2, 3, 7, 8], [5, 5, 0, 3], [9, 9, 9, 0])
    found = solve_cuts(plain.with_terms([EdgeTerm(weights), CliqueTerm(none)]))
    expected = solve_cuts(plain)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.energies == expected.energies


def test_one_label_has_no_cost(rng):
    energy = Energy(rng.integers(0, 9, (3, 4, 1)), [CliqueTerm(random_cliques(rng, 12, 3))])
    found = solve_cuts(energy)
    assert found.energy == found.lower_bound == energy.unary.sum()


def test_a_cap_above_half_of_a_clique_is_refused_for_more_labels(rng):
    cliques = Cliques([0, 4], [0, 1, 2, 3], [2], [5])
    with pytest.raises(
        ValueError, match=r"a clique of 4 valid sites has the cap 5, more than half"
    ):
        as_cut_cliques(cliques, 3)
    with pytest.raises(ValueError, match=r"lower the cap .*truncation=0.5 or less"):
        solve_cuts(Energy(np.zeros((2, 2, 3)), [CliqueTerm(cliques)]))
    assert as_cut_cliques(cliques, 2).cap.tolist() == [4]
    odd = Cliques([0, 3], [0, 1, 2], [2], [5])
    assert as_cut_cliques(odd, 2).cap.tolist() == [2]  # one of three disagrees at most
    half = SuperpixelCliques(1.7, np.zeros((3, 5), int), truncation=0.5)
    energy = Energy(rng.normal(0, 1, (3, 5, 4)), [half])
    assert solve_cuts(energy).converged


def test_cliques_of_regions_and_of_their_pixels_have_the_same_optimum(rng):
    regions = np.arange(24).reshape(4, 6) // 2
    unary = rng.normal(0, 1, (12, 2))
    image = rng.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    terms = [GridTerm(0.4), SuperpixelCliques(0.8, np.arange(24).reshape(4, 6) // 6, 0.5)]
    whole = Energy(unary, terms, image=image, regions=regions)
    found = solve_cuts(whole)
    pixels = Energy(unary[regions] / 2, terms, image=image)
    assert pixels.energy(found.labels[regions]) == pytest.approx(found.energy, rel=1e-5)
    assert solve_cuts(pixels).energy <= found.energy + 1e-6
    labelings = oracle.every_labeling((12,), 2)
    least = min(whole.energy(labels) for labels in labelings)
    assert found.energy == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (2, 2, 3), (1, 1), (1, 5)])
def test_pixels_that_are_not_valid_belong_to_no_clique(rng, shape):
    n = int(np.prod(shape))
    valid = rng.random(shape) < 0.7
    terms = [GridTerm(0.3, contrast=None)]
    if n > 1:
        terms.append(CliqueTerm(random_cliques(rng, n, 4, float, most=1.0, weighted=True)))
    results = []
    for junk in (np.nan, 5.0):
        unary = np.random.default_rng(0).normal(0, 1, (*shape, 2))
        unary[~valid] = junk
        energy = Energy(unary, terms, valid=valid)
        found = solve_cuts(energy)
        least = min(energy.energy(labels) for labels in oracle.every_labeling(shape, 2)[::-1])
        assert found.energy == pytest.approx(least, rel=1e-6, abs=1e-9)
        results.append(found.labels[valid])
    np.testing.assert_array_equal(*results)
