import sys

import numpy as np
import pytest

from hybridseg.inference import GraphCutResult, graph_cut
from hybridseg.pairwise import energy
from tests.inference.cuts.problems import case
from tests.oracles import energy as oracle


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
        # the optimum with the smallest set of ones
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
def test_flips_transpositions_and_relabeling_commute(shape):
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
    assert found.labels.tolist() == [[0, 0]]  # [[1, 1]] costs the same
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


@pytest.mark.parametrize("n_labels", [2, 3])
def test_seeds_hold_next_to_huge_weights(n_labels):
    unary = np.zeros((6, 6, n_labels), np.float32)
    unary[..., 1:] = 3
    weights = [np.ones((5, 6)), np.ones((6, 5))]
    weights[1][0] = 1e17
    seeds = np.full((6, 6), -1)
    seeds[4, 3] = 1
    assert graph_cut(unary, weights, seeds=seeds).labels[4, 3] == 1


def test_the_bound_is_below_the_optimum_to_the_last_bit():
    """The first case once gave 43.00000000000001; the others are random."""
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


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_weights_far_apart_leave_a_bound_on_large_graphs(scale):
    """The weights and their sum need 64 bits."""
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 1.5, shape) for shape in ((119, 120), (120, 119))]
    weights[0][60, 60] = 1e9
    unary = rng.normal(0, 1, (120, 120, 3))
    found = graph_cut(scale * unary, [scale * w for w in weights])
    alone = scale * unary.min(axis=-1).sum()
    assert alone < found.lower_bound <= found.energy
    plain = graph_cut(unary, weights)
    np.testing.assert_array_equal(found.labels, plain.labels)
    assert found.energy - found.lower_bound < 0.2 * (found.energy - alone)


def test_a_start_that_contradicts_the_seeds_gives_way():
    unary, weights = case(np.random.default_rng(8), (4, 5), 3)
    seeds, start = np.full((4, 5), -1), np.zeros((4, 5), int)
    seeds[1, 2], seeds[3, 4] = 1, 2
    found = graph_cut(unary, weights, seeds=seeds, init=start)
    assert found.energies[0] == energy(np.where(seeds >= 0, seeds, start), unary, weights)
