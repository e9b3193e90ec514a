from inspect import signature

import numpy as np
import pytest

from hybridseg.inference import mean_field
from hybridseg.pairwise import (
    EdgeTerm,
    Energy,
    GaussianKernel,
    GridTerm,
    RegionTerm,
    dense_energy,
    energy,
)
from tests.oracles import energy as oracle

OFFSETS_2D = [(0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (-1, 2)]
SHAPES = [(3, 4), (1, 5), (1, 1), (2, 3, 4)]


def blank(shape, offset):
    return tuple(max(0, n - abs(step)) for n, step in zip(shape, offset, strict=True))


def grid_case(rng, shape, n_labels=3, dtype=float, offsets=None):
    offsets = offsets or [tuple(row) for row in np.eye(len(shape), dtype=int).tolist()]
    labels = rng.integers(0, n_labels, shape)
    unary = rng.integers(-50, 50, (*shape, n_labels)).astype(dtype)
    weights = {o: rng.integers(0, 9, blank(shape, o)).astype(dtype) for o in offsets}
    return labels, unary, weights


@pytest.mark.parametrize("dtype", [int, np.float64, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_sum_term_by_term(shape, dtype):
    labels, unary, weights = grid_case(np.random.default_rng(0), shape, dtype=dtype)
    expected = oracle.energy(labels, unary, oracle.grid_edges(weights, shape))
    assert energy(labels, unary, weights) == expected
    assert energy(labels, unary, list(weights.values())) == expected


def test_offsets_equal_the_sum_term_by_term():
    case = grid_case(np.random.default_rng(1), (3, 4), dtype=int, offsets=OFFSETS_2D)
    labels, unary, weights = case
    assert energy(*case) == oracle.energy(labels, unary, oracle.grid_edges(weights, (3, 4)))


def test_an_offset_and_its_opposite_are_the_same_edges():
    labels, unary, weights = grid_case(np.random.default_rng(2), (3, 4), offsets=[(1, -1)])
    assert energy(labels, unary, weights) == energy(labels, unary, {(-1, 1): weights[1, -1]})


def test_region_graph_equals_the_sum_term_by_term():
    rng = np.random.default_rng(3)
    labels, unary = rng.integers(0, 4, 9), rng.integers(0, 50, (9, 4))
    i, w = rng.integers(0, 9, 20), rng.integers(0, 9, 20)
    j = (i + rng.integers(1, 9, 20)) % 9
    edges = [((p,), (q,), x) for p, q, x in zip(i, j, w, strict=True)]
    assert energy(labels, unary, (i, j, w)) == oracle.energy(labels, unary, edges)


def test_a_region_graph_of_a_grid_has_the_energy_of_the_grid():
    labels, unary, weights = grid_case(np.random.default_rng(4), (3, 5), dtype=int)
    edges = oracle.grid_edges(weights, (3, 5))
    i, j = (np.array([np.ravel_multi_index(e[end], (3, 5)) for e in edges]) for end in (0, 1))
    w = np.array([e[2] for e in edges])
    flat = energy(labels.ravel(), unary.reshape(-1, 3), (i, j, w))
    assert flat == energy(labels, unary, weights)


def test_label_costs_are_paid_once_and_only_when_present():
    unary, weights = np.zeros((2, 3, 4)), [np.zeros((1, 3)), np.zeros((2, 2))]
    labels = np.array([[0, 2, 2], [2, 0, 0]])
    assert energy(labels, unary, weights, label_costs=[1, 10, 100, 1000]) == 101


@pytest.mark.parametrize("dtype", [int, float])
def test_compatibility_equals_the_sum_term_by_term(dtype):
    rng = np.random.default_rng(5)
    labels, unary, weights = grid_case(rng, (3, 4), dtype=int)
    matrix = rng.integers(-3, 9, (3, 3)).astype(dtype)
    matrix = matrix + matrix.T
    expected = oracle.energy(labels, unary, oracle.grid_edges(weights, (3, 4)), matrix.tolist())
    assert energy(labels, unary, weights, compatibility=matrix) == expected


def test_potts_is_the_matrix_of_ones_with_a_zero_diagonal():
    case = grid_case(np.random.default_rng(6), (4, 3))
    assert energy(*case) == energy(*case, compatibility=1 - np.eye(3))


def test_relabeling_flipping_and_transposing_commute():
    rng = np.random.default_rng(7)
    labels, unary, weights = grid_case(rng, (3, 5))
    rows, columns = weights.values()
    expected = energy(labels, unary, [rows, columns])
    order = rng.permutation(3)
    assert energy(np.argsort(order)[labels], unary[..., order], [rows, columns]) == expected
    assert energy(labels[::-1], unary[::-1], [rows[::-1], columns[::-1]]) == expected
    assert energy(labels.T, unary.transpose(1, 0, 2), [columns.T, rows.T]) == expected


def test_read_only_input_is_accepted_and_left_alone():
    labels, unary, weights = grid_case(np.random.default_rng(8), (3, 5))
    arrays = [labels, unary, *weights.values()]
    for array in arrays:
        array.setflags(write=False)
    assert np.isfinite(energy(labels, unary, weights))


GOOD = {
    "labels": np.zeros((2, 3), int),
    "unary": np.zeros((2, 3, 2)),
    "weights": [np.zeros((1, 3)), np.zeros((2, 2))],
}
NODES = {"labels": np.zeros(3, int), "unary": np.zeros((3, 2))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full((2, 3), 2)}, r"labels holds values .*index 0\.\.1"),
        ({"labels": np.full((2, 3), -1)}, r"labels holds values from -1"),
        ({"labels": np.zeros((3, 2), int)}, r"labels has shape \(3, 2\)"),
        ({"unary": np.full((2, 3, 2), np.nan)}, "unary holds NaN"),
        ({"weights": [np.zeros((1, 3))]}, "weights holds 1 items; expected a list of 2 arrays"),
        ({"weights": [np.zeros((2, 2)), np.zeros((1, 3))]}, r"weights\[\(1, 0\)\] has shape"),
        ({"weights": [np.full((1, 3), np.inf), np.zeros((2, 2))]}, "holds NaN or infinite"),
        ({"weights": [np.full((1, 3), "a"), np.zeros((2, 2))]}, "expected real numbers"),
        ({"weights": {(0, 0): np.zeros((2, 3))}}, r"weights has the key \(0, 0\)"),
        ({"weights": {1: np.zeros((2, 3))}}, "weights has the key 1"),
        ({"weights": {(0, 1): 0, (0, -1): 0}}, "each edge counts once"),
        ({"compatibility": np.zeros((3, 3))}, "compatibility has shape"),
        ({"label_costs": [1, 2, 3]}, "label_costs has shape"),
        ({"label_costs": ["1", "2"]}, "label_costs has dtype <U1"),
        ({"weights": {(0.5, 0.5): np.zeros((2, 3))}}, r"weights has the key \(0.5, 0.5\)"),
        ({**NODES, "weights": [np.zeros(2)]}, "belongs to a region graph"),
        ({**NODES, "weights": ([0], [3], [1.0])}, "expected numbers from 0 to 2"),
        ({**NODES, "weights": ([0], [0], [1.0])}, "joins node 0 to itself"),
        ({**NODES, "weights": ([0.0], [1.0], [1.0])}, "expected integers"),
        ({**NODES, "weights": ([0, 1], [1], [1.0])}, r"expected three arrays \(E,\)"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        energy(**(GOOD | change))


def test_a_region_graph_may_have_no_edges():
    assert energy([1, 0], [[1, 2], [4, 8]], ([], [], [])) == 6


def test_terms_and_label_costs_add_up_exactly():
    rng = np.random.default_rng(9)
    labels, unary, weights = grid_case(rng, (3, 4), dtype=int)
    more = {(1, 1): rng.integers(2**53, 2**54, (2, 3))}
    parts = [energy(labels, unary, weights), energy(labels, 0 * unary, more)]
    both = Energy(unary, [EdgeTerm(weights), EdgeTerm(more)], label_costs=[1, 2, 4])
    exact = sum(int(part) for part in parts) + sum(1 << label for label in set(labels.flat))
    assert both.energy(labels) == float(exact)


def test_an_energy_is_a_value():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    whole = Energy(np.zeros((3, 4, 2)), [GridTerm(1.0)], image=image, seeds=np.full((3, 4), -1))
    with pytest.raises(AttributeError, match="cannot assign"):
        whole.terms = ()
    other = whole.with_terms([GridTerm(2.0)])
    assert other.sites is whole.sites
    assert (whole.terms[0].weight, other.terms[0].weight) == (1.0, 2.0)
    labels = np.indices((3, 4))[0] % 2
    assert other.energy(labels) == pytest.approx(2 * whole.energy(labels))
    assert repr(whole).startswith("Energy(3 x 4 sites, 2 labels, terms=(GridTerm(weight=1.0")
    regions = Energy(np.zeros((2, 2)), [RegionTerm()], image=image, regions=image % 2)
    assert repr(regions).startswith("Energy(2 regions, 2 labels, ")
    assert (whole.shape, whole.n_labels) == ((3, 4), 2)
    np.testing.assert_array_equal(whole.matrix, 1 - np.eye(2))


def test_the_cheapest_labeling_keeps_the_seeds():
    seeds = [[-1, 0], [1, -1]]
    found = Energy([[[0, 1], [5, 1]], [[0, 9], [3, 2]]], seeds=seeds).cheapest()
    np.testing.assert_array_equal(found, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(Energy([[[4, 1, 3], [0, 1, 2]]]).cheapest(), [[1, 0]])


IMAGE = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_all_but_costs_and_terms_are_passed_by_name():
    with pytest.raises(TypeError, match="positional argument"):
        Energy(np.zeros((3, 4, 2)), (), IMAGE)


@pytest.mark.parametrize(
    ("dtype", "kept"), [("f8", "f8"), ("f4", "f4"), ("f2", "f4"), ("i4", "i8"), ("u1", "i8")]
)
def test_costs_keep_their_precision(dtype, kept):
    assert Energy(np.zeros((3, 4, 2), dtype)).unary.dtype == np.dtype(kept)
    assert Energy([[0, 1]], compatibility=np.zeros((2, 2), dtype)).compatibility.dtype == (
        np.int64 if kept == "i8" else np.float64
    )
    assert Energy([[0, 1]], compatibility="potts").compatibility == "potts"


def test_seeds_are_unknown_where_not_valid():
    valid = np.array([[True, False, True]])
    unary = np.zeros((1, 3, 2))
    found = Energy(unary, seeds=[[1, 1, -5]], valid=valid)
    assert found.seeds.tolist() == [[1, -1, -1]]
    assert Energy(unary, seeds=[[1, 1, -5]]).seeds.tolist() == [[1, 1, -1]]
    assert Energy(unary, valid=valid).seeds is None


def test_pixels_that_are_not_valid_leave_their_region():
    regions = np.array([[0, 0, 1], [2, 2, 1]])
    valid = np.array([[True, False, True], [True, True, True]])
    masked = Energy(np.eye(3), regions=regions, valid=valid)
    assert masked.sites.regions.tolist() == [[0, -1, 1], [2, 2, 1]]
    assert masked.energy([0, 1, 2]) == 3


def test_costs_fit_their_image():
    for shape in [(3, 4, 2), (2, 3, 4, 2)]:
        assert Energy(np.zeros(shape), image=np.zeros(shape[:-1])).shape == shape[:-1]
    with pytest.raises(ValueError, match=r"unary has shape \(4, 3, 2\); expected \(3, 4, L\)"):
        Energy(np.zeros((4, 3, 2)), image=IMAGE)
    for shape in [(12, 2), (1, 1, 3, 4, 2)]:
        with pytest.raises(ValueError, match=r"expected costs \(H, W, L\) or .*: reshape it"):
            Energy(np.zeros(shape), image=IMAGE)


def test_sums_beyond_float64_are_refused():
    half = np.full((1, 2, 2), 0.9e308)
    assert Energy(half[:, :1]).energy([[0]]) == 0.9e308
    for beyond in (half, -half):
        with pytest.raises(ValueError, match="costs whose sum overflows float64"):
            Energy(np.concatenate([beyond, beyond])).energy([[0, 0], [1, 1]])


@pytest.mark.parametrize("known", [{"image": IMAGE}, {"valid": IMAGE < 9}])
@pytest.mark.parametrize("wrong", [-1, 2])
def test_labels_are_indices_at_every_valid_pixel(known, wrong):
    unary = np.stack([np.ones((3, 4)), np.full((3, 4), 10.0)], axis=-1)
    judge = Energy(unary, **known)
    n_valid = 9 if "valid" in known else 12
    labels = np.ones((3, 4), int)
    assert judge.energy(labels) == 10 * n_valid  # of one label
    labels[0, 1] = 0
    assert judge.energy(labels) == 10 * n_valid - 9
    labels[2, 3] = wrong
    if "valid" in known:
        assert judge.energy(labels) == 10 * n_valid - 9
        labels[0, 0] = wrong
    with pytest.raises(ValueError, match=r"labels run from .* expected indices 0\.\.1"):
        judge.energy(labels)


@pytest.mark.parametrize("junk", [0, 1, -1])
def test_labels_cost_nothing_where_not_valid(junk):
    known = {"valid": IMAGE < 9, "label_costs": [3, 40]}
    judge = Energy(np.zeros((3, 4, 2), int), **known)
    for label, cost in enumerate([3, 40]):
        assert judge.energy(np.where(IMAGE < 9, label, junk)) == cost
    nowhere = Energy(np.zeros((3, 4, 2)), valid=np.zeros((3, 4), bool), label_costs=[3, 40])
    assert nowhere.energy(np.full((3, 4), junk)) == 0


def test_one_label_pays_at_valid_pixels_only():
    one = Energy(np.ones((3, 4, 1)), valid=IMAGE < 9)
    assert one.energy(np.where(IMAGE < 9, 0, -1)) == 9


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_a_dense_kernel_of_two_pixels_is_as_by_hand(weight):
    pair = Energy(np.zeros((1, 2, 2)), [GaussianKernel(weight, 2.0)], image=np.zeros((1, 2)))
    kernel = np.exp(-1 / (2 * 2.0**2))  # one pixel apart, at a width of 2
    norm = 1 + kernel  # of both: the pixel itself and the other
    assert pair.energy([[0, 1]]) == pytest.approx(weight * kernel / norm)
    assert pair.energy([[1, 1]]) == pytest.approx(0)


def test_the_exact_energy_has_the_defaults_of_mean_field():
    judged, solved = signature(dense_energy).parameters, signature(mean_field).parameters
    shared = judged.keys() & solved.keys()
    assert {"spatial_weight", "bilateral_weight", "bilateral_color", "spacing"} < shared
    for name in shared:
        assert judged[name].default == solved[name].default, name


class Unbounded:
    def cost(self, sites, labels, matrix):
        return np.nan


def test_a_cost_that_is_not_finite_is_told_of_its_term():
    energy = Energy(np.zeros((2, 2, 2)), [Unbounded()])
    with pytest.raises(ValueError, match=r"Unbounded\.cost\(sites, labels, matrix\)=nan; expected"):
        energy.energy(np.zeros((2, 2), int))
