import sys
import types

import numpy as np
import pytest
from sklearn.base import clone

from hybridseg.base import Scene
from hybridseg.costs import RegionCosts
from hybridseg.inference.graph_cut import GraphCut, GraphCutResult, graph_cut
from hybridseg.inference.moves import EnergyGraph, expand, swap
from hybridseg.inference.scene_parts import regions_of
from hybridseg.pairwise import energy, grid_weights
from tests.oracles import energy as oracle


def case(rng, shape=(3, 4), n_labels=2, dtype=int, connectivity=1):
    """Costs and weights with many ties (integers), or without any (floats)."""
    image = np.zeros(shape)
    spread = 1 if dtype is int else rng.random((*shape, n_labels))
    unary = rng.integers(0, 12, (*shape, n_labels)) * spread
    weights = {
        offset: (rng.integers(0, 6, w.shape) * (1 if dtype is int else rng.random(w.shape)))
        for offset, w in grid_weights(
            image, connectivity=connectivity, spatial_ndim=len(shape)
        ).items()
    }
    return unary.astype(dtype), {o: w.astype(dtype) for o, w in weights.items()}


def solvers():
    return ["numba", "pymaxflow"]


def solve(unary, weights, **options) -> GraphCutResult:
    if options.get("solver") == "pymaxflow":
        pytest.importorskip("maxflow")
    return graph_cut(unary, weights, **options)


@pytest.mark.parametrize("solver", solvers())
@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize("shape", [(3, 4), (1, 6), (5, 1), (2, 2, 3)])
def test_two_labels_are_solved_exactly(shape, dtype, solver):
    for seed in range(10):
        unary, weights = case(np.random.default_rng(seed), shape, dtype=dtype, connectivity=2)
        edges = oracle.grid_edges(weights, shape)
        least, optima = oracle.minimum(unary, edges)
        found = solve(unary, weights, solver=solver)
        assert found.energy == pytest.approx(least, rel=0 if dtype is int else 1e-12)
        assert found.lower_bound == found.energy
        assert found.converged
        # of all optima, the one with the least set of ones
        np.testing.assert_array_equal(found.labels, optima.min(axis=0))
        assert found.labels.dtype == np.int32


@pytest.mark.parametrize("seed", range(8))
def test_three_labels_lie_between_the_optimum_and_twice_the_optimum(seed):
    unary, weights = case(np.random.default_rng(seed), n_labels=3, dtype=float)
    least, _ = oracle.minimum(unary, oracle.grid_edges(weights, (3, 4)))
    found = graph_cut(unary, weights)
    assert least - 1e-9 <= found.energy <= 2 * least
    assert found.lower_bound <= least + 1e-9
    assert found.energy == pytest.approx(energy(found.labels, unary, weights), rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_every_expansion_move_is_the_best_of_all_moves(seed):
    rng = np.random.default_rng(seed)
    unary, weights = case(rng, n_labels=3)
    edges = oracle.grid_edges(weights, (3, 4))
    i, j, w = (np.array(x) for x in zip(*edges, strict=True))
    i, j = (np.ravel_multi_index(end.T, (3, 4)) for end in (i, j))
    graph = EnergyGraph.build(i, j, w, unary.reshape(12, 3))
    start = rng.integers(0, 3, (3, 4))
    for alpha in range(3):

        def reachable(labels, alpha=alpha):
            return ((labels == start) | (labels == alpha)).all(axis=(1, 2))

        least, optima = oracle.minimum(unary, edges, reachable)
        moved = expand(graph, start.ravel().astype(np.int32), alpha).reshape(3, 4)
        assert energy(moved, unary, weights) == least
        # where the energy does not decide, labels are kept
        expected = np.where((optima != start).all(axis=0), alpha, start)
        np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("dtype", [int, float])
def test_the_energy_never_rises_and_ends_where_no_move_helps(dtype):
    unary, weights = case(np.random.default_rng(0), (30, 23), 6, dtype, connectivity=2)
    found = graph_cut(unary, weights)
    assert found.converged
    assert (np.diff(found.energies) <= 0).all()
    given = graph_cut(unary, weights, init=unary.argmin(axis=-1))
    assert given.converged
    assert given.energies[0] == pytest.approx(energy(unary.argmin(axis=-1), unary, weights))
    assert found.energies[-1] == found.energy == pytest.approx(energy(found.labels, unary, weights))
    assert found.lower_bound <= found.energy
    again = graph_cut(unary, weights, init=found.labels)
    np.testing.assert_array_equal(again.labels, found.labels)
    assert again.n_iter == 1


def test_more_bound_sweeps_tighten_the_bound():
    unary, weights = case(np.random.default_rng(1), (20, 31), 5, float)
    bounds = [graph_cut(unary, weights, bound_iter=n).lower_bound for n in (0, 1, 10, 40)]
    assert bounds == sorted(bounds)
    assert bounds[0] <= bounds[1]
    assert bounds[-1] > 0.97 * graph_cut(unary, weights).energy


@pytest.mark.parametrize("n_labels", [2, 5])
def test_both_solvers_give_the_same_result(n_labels):
    pytest.importorskip("maxflow")
    for seed in range(3):
        unary, weights = case(np.random.default_rng(seed), (17, 26), n_labels)
        ours = graph_cut(unary, weights)
        theirs = graph_cut(unary, weights, solver="pymaxflow")
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.energies == theirs.energies


def test_two_label_energy_equals_the_flow_of_pymaxflow():
    library = pytest.importorskip("maxflow")
    for seed in range(5):
        unary, weights = case(np.random.default_rng(seed), (23, 38))
        peer = library.Graph[int]()
        nodes = peer.add_grid_nodes((23, 38))
        for (row, column), w in weights.items():
            structure = np.zeros((3, 3), int)
            structure[1 + row, 1 + column] = 1
            padded = np.pad(w, [(0, row), (0, column)])
            peer.add_grid_edges(nodes, padded, structure, symmetric=True)
        peer.add_grid_tedges(nodes, unary[..., 0], unary[..., 1])
        assert graph_cut(unary, weights).energy == peer.maxflow()


@pytest.mark.parametrize("shape", [(9, 14), (3, 4, 6)])
def test_flips_transpositions_and_relabelling_commute(shape):
    unary, weights = case(np.random.default_rng(2), shape, dtype=float)
    found = graph_cut(unary, weights)
    axes = list(weights.values())
    flipped = graph_cut(unary[:, ::-1], [w[:, ::-1] for w in axes])
    np.testing.assert_array_equal(flipped.labels, found.labels[:, ::-1])
    turned = graph_cut(
        np.moveaxis(unary, 0, -2), [np.moveaxis(w, 0, -1) for w in [*axes[1:], axes[0]]]
    )
    np.testing.assert_array_equal(turned.labels, np.moveaxis(found.labels, 0, -1))
    swapped = graph_cut(unary[..., ::-1], weights)
    np.testing.assert_array_equal(swapped.labels, 1 - found.labels)
    assert [flipped.energy, turned.energy, swapped.energy] == pytest.approx([found.energy] * 3)


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("dtype", [int, np.float32])
def test_seeds_are_obeyed_and_the_rest_is_optimal(n_labels, dtype):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        unary, weights = case(rng, (3, 3), n_labels)
        unary, weights = unary.astype(dtype), {o: w.astype(dtype) for o, w in weights.items()}
        seeds = np.where(rng.random((3, 3)) < 0.3, rng.integers(0, n_labels, (3, 3)), -1)

        def obeys(labels, seeds=seeds):
            return ((labels == seeds) | (seeds < 0)).all(axis=(-2, -1))

        least, _ = oracle.minimum(unary.astype(int), oracle.grid_edges(weights, (3, 3)), obeys)
        found = graph_cut(unary, weights, seeds=seeds)
        assert obeys(found.labels)
        assert found.energy == energy(found.labels, unary, weights)
        assert found.lower_bound <= least + 1e-6
        if n_labels == 2:
            assert found.energy == least
        else:
            assert least <= found.energy


def test_a_region_graph_is_solved_as_the_grid_it_is():
    unary, weights = case(np.random.default_rng(3), (6, 7), 4)
    edges = oracle.grid_edges(weights, (6, 7))
    i, j = (np.array([np.ravel_multi_index(e[end], (6, 7)) for e in edges]) for end in (0, 1))
    found = graph_cut(unary.reshape(42, 4), (i, j, np.array([e[2] for e in edges])))
    expected = graph_cut(unary, weights)
    np.testing.assert_array_equal(found.labels, expected.labels.ravel())
    assert found.energy == expected.energy


def test_integers_beyond_double_precision_stay_exact():
    big = 2**53
    unary = np.array([[[big, big + 1], [big + 1, big]]])
    found = graph_cut(unary, [np.zeros((0, 2), int), np.array([[1]])])
    assert found.labels.tolist() == [[0, 0]]  # a tie at 2 big + 1: the fewest ones
    assert found.energy == float(2 * big + 1)


@pytest.mark.parametrize("n_labels", [1, 2, 3])
def test_without_weights_every_pixel_takes_its_cheapest_label(n_labels):
    unary, weights = case(np.random.default_rng(4), (4, 5), n_labels)
    found = graph_cut(unary, {o: np.zeros_like(w) for o, w in weights.items()})
    np.testing.assert_array_equal(found.labels, unary.argmin(axis=-1))
    assert found.energy == found.lower_bound == unary.min(axis=-1).sum()


@pytest.mark.parametrize("n_labels", [1, 2, 4])
def test_one_pixel(n_labels):
    unary = np.arange(n_labels)[::-1].reshape(1, 1, -1) + 2
    found = graph_cut(unary, [np.zeros((0, 1)), np.zeros((1, 0))])
    assert found.labels.tolist() == [[n_labels - 1]]
    assert found.energy == 2


def test_great_weights_leave_one_label():
    unary, weights = case(np.random.default_rng(5), (6, 8), 3)
    found = graph_cut(unary, {o: np.full_like(w, 10_000) for o, w in weights.items()})
    assert (found.labels == unary.sum(axis=(0, 1)).argmin()).all()


def test_read_only_and_strided_input_is_accepted_and_left_alone():
    unary, weights = case(np.random.default_rng(6), (8, 9), 3)
    expected = graph_cut(unary, weights)
    strided = np.repeat(unary, 2, axis=1)[:, ::2]
    labels, seeds = np.zeros((8, 9), np.uint8), np.full((8, 9), -1)
    for array in (strided, labels, seeds, *weights.values()):
        array.setflags(write=False)
    found = graph_cut(strided, weights, seeds=seeds)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert graph_cut(strided, weights, init=labels).energy <= energy(labels, strided, weights)


def test_too_few_sweeps_are_said_to_be():
    unary, weights = case(np.random.default_rng(7), (30, 30), 6, float)
    assert not graph_cut(unary, weights, max_iter=1).converged


GOOD = {"unary": np.zeros((2, 3, 2)), "weights": [np.zeros((1, 3)), np.zeros((2, 2))]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [np.full((1, 3), -2.0), np.zeros((2, 2))]}, "weights holds -2; .*submodular"),
        ({"unary": np.full((2, 3, 2), np.inf)}, "unary holds NaN or infinite"),
        ({"moves": "jumps"}, "moves='jumps'; expected one of 'expansion', 'swap'"),
        ({"compatibility": [[0, -1], [-1, 0]]}, r"compatibility\[0, 1\]=-1; .*costs >= 0"),
        ({"compatibility": [[1, 1], [1, 0]]}, r"compatibility\[0, 0\]=1; .*diagonal of zeros"),
        ({"solver": "gurobi"}, "solver='gurobi'; expected one of 'numba', 'pymaxflow'"),
        ({"init": np.full((2, 3), 2)}, "init holds values"),
        ({"seeds": np.full((2, 3), 2)}, "seeds holds 2; expected label indices"),
        ({"seeds": np.zeros((3, 2), int)}, "seeds has shape"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"bound_iter": -1}, "bound_iter=-1"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        graph_cut(**(GOOD | change))


def test_a_missing_pymaxflow_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "maxflow", None)
    with pytest.raises(ImportError, match=r"pip install hybridseg\[pymaxflow\].*GPL"):
        graph_cut(**GOOD, solver="pymaxflow")


def scene(seed=0, shape=(9, 12), classes=(0, 1, 2), **known):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    logits = rng.normal(size=(*shape, len(classes)))
    return Scene.from_logits(image, logits, classes, **known)


def test_the_estimator_equals_the_function():
    given = scene(classes=(10, 4, 7))
    model = GraphCut(weight=2.0, connectivity=2, contrast=30.0)
    weights = grid_weights(given.image, weight=2.0, connectivity=2, contrast=30.0)
    expected = np.array([10, 4, 7])[graph_cut(given.unary, weights).labels]
    np.testing.assert_array_equal(model.predict([given])[0], expected)
    refined = model.transform([given])[0]
    np.testing.assert_array_equal(refined.labels, expected)
    np.testing.assert_array_equal(refined.unary, given.unary)
    assert not hasattr(model, "predict_proba")


def test_the_estimator_solves_volumes_with_spacing():
    given = scene(shape=(4, 5, 6), spacing=(4.0, 1.0, 1.0))
    weights = grid_weights(given.image, weight=1.0, spacing=(4.0, 1.0, 1.0))
    found = GraphCut(weight=1.0).predict([given])[0]
    np.testing.assert_array_equal(found, graph_cut(given.unary, weights).labels)


def test_seeds_of_the_scene_are_obeyed():
    seeds = np.full((9, 12), -1)
    seeds[2:4, 3:5], seeds[7, 7] = 30, 20
    found = GraphCut(weight=5.0).predict([scene(classes=(20, 30), seeds=seeds)])[0]
    np.testing.assert_array_equal(found[seeds >= 0], seeds[seeds >= 0])
    with pytest.raises(ValueError, match=r"seeds holds the label 30; expected one of the classes"):
        GraphCut().predict([scene(classes=(20, 31), seeds=seeds)])


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_pixels_that_are_not_valid_influence_no_others(on):
    given = scene()
    valid = np.ones((9, 12), bool)
    valid[:, 8:] = False
    regions = np.arange(108, dtype=np.int32).reshape(9, 12)
    spoilt_image = np.where(valid[..., np.newaxis], given.image, 255 - given.image)
    spoilt_costs = np.where(valid[..., np.newaxis], given.unary, -1000)
    spoilt = given.replace(image=spoilt_image, unary=spoilt_costs, valid=valid, regions=regions)
    small = Scene(given.image[:, :8], given.unary[:, :8], classes=given.classes, spatial_ndim=2)
    found = GraphCut(weight=2.0, on=on).predict([spoilt])[0]
    np.testing.assert_array_equal(found[:, :8], GraphCut(weight=2.0).predict([small])[0])
    assert (found[:, 8:] == -1).all()


def testregions_of_one_pixel_are_pixels():
    given = scene()
    regions = np.arange(108, dtype=np.int32).reshape(9, 12)
    expected = GraphCut(weight=2.0).predict([given])[0]
    found = GraphCut(weight=2.0, on="regions").predict([given.replace(regions=regions)])[0]
    np.testing.assert_array_equal(found, expected)


def test_regions_keep_their_boundaries_and_obey_seeds():
    regions = (np.arange(9)[:, None] // 3 * 4 + np.arange(12) // 3).astype(np.int32)
    costs = RegionCosts(regions, np.random.default_rng(1).random((12, 3), np.float32))
    seeds = np.full((9, 12), -1)
    seeds[4, 4] = 2
    given = scene(seeds=seeds).replace(unary=costs)
    found = GraphCut(weight=0.5, on="regions").predict([given])[0]
    for number in range(12):
        assert len(np.unique(found[regions == number])) == 1
    assert (found[regions == regions[4, 4]] == 2).all()


def test_pixels_outside_all_regions_take_their_cheapest_label():
    regions = np.zeros((9, 12), np.int32)
    regions[:, 6:], regions[0] = 5, -1
    given = scene().replace(regions=regions)
    found = GraphCut(on="regions").predict([given])[0]
    np.testing.assert_array_equal(found[0], given.unary[0].argmin(axis=-1))
    assert len(np.unique(found[1:, :6])) == 1


def test_regions_are_asked_for():
    with pytest.raises(ValueError, match="on='regions' needs superpixels"):
        GraphCut(on="regions").predict([scene()])


def test_both_solvers_of_the_estimator_agree():
    pytest.importorskip("maxflow")
    ours, theirs = (GraphCut(weight=2.0, solver=solver) for solver in solvers())
    np.testing.assert_array_equal(ours.predict([scene()])[0], theirs.predict([scene()])[0])


@pytest.mark.parametrize(
    "change", [{"weight": -1}, {"on": "lines"}, {"solver": "x"}, {"contrast": 0.0}, {"moves": "x"}]
)
def test_bad_parameters_are_named(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"'{name}' parameter of GraphCut"):
        clone(GraphCut(**change)).predict([scene()])


@pytest.mark.parametrize("n_labels", [2, 3])
def test_seeds_hold_next_to_huge_weights(n_labels):
    unary = np.zeros((6, 6, n_labels), np.float32)
    unary[..., 1:] = 3
    weights = [np.ones((5, 6)), np.ones((6, 5))]
    weights[1][0] = 1e17
    seeds = np.full((6, 6), -1)
    seeds[4, 3] = 1
    assert graph_cut(unary, weights, seeds=seeds).labels[4, 3] == 1


@pytest.mark.parametrize(
    ("unary", "weight"), [([[2**62, 0], [0, 1]], 1), ([[1, 0], [0, 1]], 2**62)]
)
def test_integers_that_would_wrap_are_refused(unary, weight):
    with pytest.raises(ValueError, match="integers whose sum may reach .*pass floats"):
        graph_cut(np.array(unary), ([0], [1], [weight]))
    found = graph_cut(np.array(unary) // 2, ([0], [1], [weight // 2]), seeds=[0, 1])
    assert found.energy == float(unary[0][0] // 2 + weight // 2)


def test_the_bound_is_below_the_optimum_to_the_last_bit():
    """The first case came to 43.00000000000001, the others are drawn."""
    i, j = np.array([0, 1, 3, 4, 0, 1, 2]), np.array([1, 2, 4, 5, 3, 4, 5])
    given = [[8, 0, 3], [0, 2, 10], [11, 7, 8], [6, 16, 0], [14, 15, 20], [5, 10, 19]]
    cases = [(np.array(given), np.array([10, 9, 9, 7, 0, 9, 4]))]
    rng = np.random.default_rng(5)
    cases += [(rng.integers(0, 21, (6, 3)), rng.integers(0, 11, 7)) for _ in range(100)]
    tight = 0
    for unary, w in cases:
        edges = [((p,), (q,), x) for p, q, x in zip(i, j, w, strict=True)]
        least, _ = oracle.minimum(unary, edges)
        exact = graph_cut(unary, (i, j, w))
        assert exact.lower_bound <= least
        assert exact.lower_bound == int(exact.lower_bound)
        tight += exact.lower_bound == least
        rounded = graph_cut(unary * 0.5, (i, j, w * 0.5))  # halves are exact as well
        assert least / 2 - 1 <= rounded.lower_bound <= least / 2
    assert tight > 80


def test_a_start_that_contradicts_the_seeds_gives_way():
    unary, weights = case(np.random.default_rng(8), (4, 5), 3)
    seeds, start = np.full((4, 5), -1), np.zeros((4, 5), int)
    seeds[1, 2], seeds[3, 4] = 1, 2
    found = graph_cut(unary, weights, seeds=seeds, init=start)
    assert found.energies[0] == energy(np.where(seeds >= 0, seeds, start), unary, weights)


def test_graphs_beyond_32_bits_are_refused(monkeypatch):
    monkeypatch.setattr(sys.modules[GraphCut.__module__], "MAX_ARCS", 14)
    with pytest.raises(ValueError, match="6 nodes and 7 edges; .*at most 6 edges"):
        graph_cut(**GOOD)


@pytest.mark.parametrize("on", ["pixels", "regions"])
def test_nothing_valid_or_no_region_leaves_the_cheapest_labels(on):
    regions = np.arange(108, dtype=np.int32).reshape(9, 12)
    given = scene(regions=regions, valid=np.zeros((9, 12), bool))
    assert (GraphCut(on=on).predict([given])[0] == -1).all()
    given = scene(regions=np.full((9, 12), -1, np.int32))
    found = GraphCut(on="regions").predict([given])[0]
    np.testing.assert_array_equal(found, given.unary.argmin(axis=-1))


def test_regions_are_read_without_the_costs_of_the_scene():
    """The map is asked for by name; the chain behind ``region_costs`` is left alone."""
    given = scene(regions=np.arange(108, dtype=np.int32).reshape(9, 12))
    bare = types.SimpleNamespace(regions=given.regions, shape=given.shape)
    np.testing.assert_array_equal(regions_of(bare, None), given.regions)


STEPS = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))


def least_with(cost, unary, edges):
    """The optimum under any costs of label pairs."""
    every = np.array(list(np.ndindex(*[unary.shape[-1]] * int(np.prod(unary.shape[:-1])))))
    every = every.reshape(-1, *unary.shape[:-1])
    return min(oracle.energy(labels, unary, edges, cost) for labels in every)


@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize(("moves", "cost"), [("expansion", STEPS), ("swap", STEPS**2)])
def test_other_pair_costs_lie_between_bound_and_start(moves, cost, dtype):
    for seed in range(4):
        unary, weights = case(np.random.default_rng(seed), (2, 3), 3, dtype)
        edges = oracle.grid_edges(weights, (2, 3))
        found = graph_cut(unary, weights, compatibility=cost, moves=moves)
        least = least_with(cost, unary, edges)
        expected = energy(found.labels, unary, weights, compatibility=cost)
        assert found.energy == pytest.approx(expected, rel=0 if dtype is int else 1e-12)
        assert found.lower_bound - 1e-9 <= least <= found.energy + 1e-9
        assert found.converged
        assert (np.diff(found.energies) <= 0).all()


def test_every_swap_is_the_best_of_all_swaps():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        unary, weights = case(rng, (3, 3), 3)
        edges = oracle.grid_edges(weights, (3, 3))
        i, j, w = (np.array(x) for x in zip(*edges, strict=True))
        i, j = (np.ravel_multi_index(end.T, (3, 3)) for end in (i, j))
        graph = EnergyGraph.build(i, j, w, unary.reshape(9, 3))
        start = rng.integers(0, 3, (3, 3))
        for pair in ((0, 1), (0, 2), (1, 2)):

            def reachable(labels, pair=pair, start=start):
                free = np.isin(labels, pair) & np.isin(start, pair)
                return ((labels == start) | free).all(axis=(1, 2))

            least, _ = oracle.minimum(unary, edges, reachable)
            moved = swap(graph, start.ravel().astype(np.int32), *pair).reshape(3, 3)
            assert reachable(moved[np.newaxis]).all()
            assert energy(moved, unary, weights) == least


def test_potts_written_as_a_matrix_is_potts():
    unary, weights = case(np.random.default_rng(9), (7, 8), 4)
    potts = 1 - np.eye(4, dtype=int)
    assert (
        graph_cut(unary, weights, compatibility=potts).energies
        == graph_cut(unary, weights).energies
    )
    twice = graph_cut(unary[..., :2], weights, compatibility=[[0, 2], [2, 0]])
    doubled = graph_cut(unary[..., :2], {o: 2 * w for o, w in weights.items()})
    np.testing.assert_array_equal(twice.labels, doubled.labels)
    assert twice.energy == doubled.energy


def test_general_moves_agree_with_those_that_keep_their_flows():
    """2 x Potts goes the general way, and ends where no expansion helps either."""
    unary, weights = case(np.random.default_rng(10), (9, 11), 4)
    general = graph_cut(2 * unary, weights, compatibility=2 - 2 * np.eye(4, dtype=int))
    again = graph_cut(unary, weights, init=general.labels)
    assert general.energy == 2 * again.energies[0] == 2 * again.energies[-1]
    assert again.lower_bound <= again.energy


def test_swaps_obey_seeds_and_solve_region_graphs():
    unary, weights = case(np.random.default_rng(11), (5, 6), 3)
    seeds = np.full((5, 6), -1)
    seeds[1, 1], seeds[3, 4] = 2, 0
    options = {"moves": "swap", "compatibility": STEPS**2, "seeds": seeds}
    found = graph_cut(unary, weights, **options)
    assert (found.labels == seeds)[seeds >= 0].all()
    edges = oracle.grid_edges(weights, (5, 6))
    i, j = (np.array([np.ravel_multi_index(e[end], (5, 6)) for e in edges]) for end in (0, 1))
    flat = options | {"seeds": seeds.ravel()}
    regions = graph_cut(unary.reshape(30, 3), (i, j, np.array([e[2] for e in edges])), **flat)
    np.testing.assert_array_equal(regions.labels, found.labels.ravel())


def test_the_three_labels_that_break_the_triangle_inequality_are_named():
    with pytest.raises(ValueError, match=r"\[0, 2\]=4 is more than \[0, 1\] \+ \[1, 2\]=2.*'swap'"):
        graph_cut(np.zeros((2, 2, 3)), [np.ones((1, 2)), np.ones((2, 1))], compatibility=STEPS**2)


def test_no_expansion_is_left_where_the_flows_converged():
    """By the cuts from scratch, which keep no flow; costs beyond 32 bits as well."""
    for factor in (1, 2**40, 0.1):
        unary, weights = case(np.random.default_rng(12), (13, 9), 5)
        unary = unary * factor
        weights = {o: w * factor for o, w in weights.items()}
        found = graph_cut(unary, weights)
        edges = oracle.grid_edges(weights, (13, 9))
        i, j = (np.array([np.ravel_multi_index(e[end], (13, 9)) for e in edges]) for end in (0, 1))
        graph = EnergyGraph.build(i, j, np.array([e[2] for e in edges]), unary.reshape(-1, 5))
        for alpha in range(5):
            moved = expand(graph, found.labels.ravel(), alpha)
            assert graph.energy(moved) >= found.energy * (1 - 1e-7)
