"""The terms of label sets: their abilities, their parameters, and their estimates from maps."""

import copy
import pickle

import numpy as np
import pytest

import hybridseg
from hybridseg import CRF, Scene
from hybridseg.files import write_labels
from hybridseg.pairwise import CoOccurrence, Energy, GridTerm, LabelCosts
from hybridseg.pairwise.higher_order.label_sets import label_presence
from hybridseg.pairwise.terms import HasLabelSetCosts, ScaledTerm, can, scaled
from tests.oracles import energy as oracle
from tests.pairwise.higher_order.test_presence import Pairs, random_costs, slope


def labelings_of(rng, shape, n_labels, n=12):
    return [rng.integers(0, rng.integers(1, n_labels + 1), shape) for _ in range(n)]


@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2), (7,)])
def test_each_label_and_each_pair_is_paid_once(rng, dtype, shape):
    matrix = random_costs(rng, 4, dtype)
    unary = rng.integers(0, 9, (*shape, 4)).astype(dtype)
    given = matrix.copy()
    given.setflags(write=False)
    energy = Energy(unary, [CoOccurrence(given, 2)], label_costs=[1, 2, 3, 4])
    plain = Energy(unary)
    for labels in labelings_of(rng, shape, 4):
        own = 2 * oracle.cost_of_set(labels, matrix)
        own += oracle.cost_of_set(labels, np.diag([1, 2, 3, 4]))
        assert energy.energy(labels) - plain.energy(labels) == pytest.approx(own, rel=1e-9)
    exact = CoOccurrence(given, 2).label_set_costs(4).dtype
    assert exact == (np.int64 if dtype is int else np.float64)
    assert CoOccurrence(given, 0.5).label_set_costs(4).dtype == np.float64


def test_label_costs_are_a_diagonal(rng):
    costs, unary = rng.integers(0, 9, 4), rng.integers(0, 9, (3, 4, 4))
    same = [
        Energy(unary, [LabelCosts(costs, 3)]),
        Energy(unary, [CoOccurrence(np.diag(costs), 3)]),
        Energy(unary, [Pairs(np.diag(3 * costs))]),
        Energy(unary, label_costs=3 * costs),
    ]
    for labels in labelings_of(rng, (3, 4), 4):
        assert len({energy.energy(labels) for energy in same}) == 1


def test_only_valid_sites_make_a_label_occur(rng):
    valid = np.ones((3, 4), bool)
    valid[0] = False
    energy = Energy(np.zeros((3, 4, 3), int), [CoOccurrence(np.full((3, 3), 5))], valid=valid)
    labels = np.ones((3, 4), int)
    labels[0] = [0, 2, -1, 7]
    assert energy.energy(labels) == 5
    labels[1, 0] = 2
    assert energy.energy(labels) == 15
    nothing = Energy(np.zeros((1, 1, 3)), [CoOccurrence(np.full((3, 3), 5))], valid=[[False]])
    assert nothing.energy([[0]]) == 0


def test_a_region_without_pixels_counts():
    regions = np.array([[0, 0, 2]])
    term = CoOccurrence([[1, 4], [4, 2]])
    energy = Energy(np.zeros((3, 2)), [term], regions=regions)
    assert energy.energy([0, 1, 0]) == 7


def test_the_label_set_comes_before_all_other_abilities(rng):
    class Loud(CoOccurrence):
        def cost(self, sites, labels, matrix):
            raise AssertionError

        def edges(self, sites):
            raise AssertionError

    unary = rng.integers(0, 9, (3, 4, 3))
    matrix = random_costs(rng, 3, int)
    loud, term = (Energy(unary, [kind(matrix)]) for kind in (Loud, CoOccurrence))
    labels = rng.integers(0, 3, (3, 4))
    assert loud.energy(labels) == term.energy(labels)
    assert loud.edges == []
    assert loud.local_terms == []
    other = term.with_terms([GridTerm(1.0, contrast=None)])
    assert other.presence_costs is None
    assert len(other.local_terms) == 1


@pytest.mark.parametrize("factor", [0.0, 2.5, 3])
def test_scaled_terms_have_the_scaled_costs(rng, factor):
    matrix, single = random_costs(rng, 3), rng.normal(0, 1, 3)
    for term in (CoOccurrence(matrix, 2.0), LabelCosts(single, 2.0), Pairs(matrix)):
        found = scaled(term, factor)
        assert can(found, HasLabelSetCosts)
        expected = factor * np.asarray(term.label_set_costs(3))
        np.testing.assert_allclose(found.label_set_costs(3), expected, rtol=1e-12)
        assert isinstance(found, ScaledTerm) == isinstance(term, Pairs)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", [CoOccurrence, LabelCosts])
@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 2), (5,)])
def test_messages_and_their_gradient_are_those_of_the_weighted_costs(rng, kind, masked, shape):
    matrix = random_costs(rng, 3)
    term = kind(matrix if kind is CoOccurrence else matrix.diagonal(), 1.7)
    valid = rng.random(shape) < 0.7 if masked and len(shape) > 1 else None
    sites = Energy(np.zeros((*shape, 3)), valid=valid).sites
    marginals, slopes = rng.dirichlet(np.ones(3), shape), rng.normal(0, 1, (*shape, 3))
    for array in (marginals, slopes):
        array.setflags(write=False)
    seen = np.ones(shape, bool) if valid is None else valid

    def told(q):
        absent = np.where(seen[..., np.newaxis], 1 - q, 1).reshape(-1, 3)
        others = np.array([np.delete(absent, i, axis=0).prod(axis=0) for i in range(len(absent))])
        costs = 1.7 * np.diag(matrix.diagonal()) if kind is LabelCosts else 1.7 * matrix
        prices = costs.diagonal() + (costs - np.diag(costs.diagonal())) @ (1 - absent.prod(axis=0))
        return (prices * others).reshape(q.shape) * seen[..., np.newaxis]

    found = term.messages(sites, marginals)
    np.testing.assert_allclose(found, told(marginals), rtol=1e-5, atol=1e-6)
    expected = slope(lambda q: (slopes * told(q)).sum(), marginals)
    found = term.messages_gradient(sites, marginals, slopes)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.01
    half = kind(term.costs, 0.85).messages(sites, marginals)
    np.testing.assert_allclose(2 * half, term.messages(sites, marginals), rtol=1e-5)


MAPS = [np.array([[3, 3, 7]])] * 6 + [np.array([[9, 7, -1]])] * 3


def test_estimates_follow_the_formula():
    term = CoOccurrence.from_label_maps(MAPS, [9, 3, 7], weight=2.0, prior=0.5)
    expected = np.zeros((3, 3))  # in the order 3, 7, 9
    np.fill_diagonal(expected, -np.log([6.5 / 9.5, 1.0, 3.5 / 9.5]))
    expected[0, 2] = expected[2, 0] = -np.log(0.5 / (6 * 3 / 9 + 0.5))
    np.testing.assert_allclose(term.costs, expected, atol=1e-12)
    np.testing.assert_allclose(term.label_set_costs(3), 2 * expected, atol=1e-12)
    single = LabelCosts.from_label_maps(MAPS, [9, 3, 7], weight=2.0, prior=0.5)
    np.testing.assert_allclose(single.costs, expected.diagonal())
    pairs = CoOccurrence.from_label_maps(MAPS, [9, 3, 7], prior=0.5, label_costs=False)
    np.testing.assert_allclose(pairs.costs, expected - np.diag(expected.diagonal()), atol=1e-12)


def test_few_images_and_a_strong_prior_give_weak_costs():
    sizes = []
    for n, prior in ((1, 1.0), (4, 1.0), (4, 1e6)):
        maps = ([np.array([[0]]), np.array([[1]])] * 2)[:n]
        term = CoOccurrence.from_label_maps(maps, [0, 1, 2], prior=prior)
        assert (term.costs >= 0).all()
        assert term.costs.max() <= np.log(1 + n / prior) + 1e-12
        sizes.append(term.costs.max())
    assert 0 < sizes[0] < sizes[1]
    assert 0 < sizes[2] < 1e-5


def test_labels_that_never_occur_alone_or_at_all_have_no_pair_costs(rng):
    maps = [np.array([[0, 1]])] * 5 + [np.array([[0]])] * 3
    costs = CoOccurrence.from_label_maps(maps, [0, 1, 2], label_costs=False).costs
    assert (costs == 0).all()


def test_estimates_commute_with_the_order_of_labels(rng):
    maps = [rng.integers(0, rng.integers(1, 5), (3, 4)) for _ in range(9)]
    order = np.array([2, 0, 3, 1])
    one = CoOccurrence.from_label_maps(maps, range(4)).costs
    other = CoOccurrence.from_label_maps([order[m] for m in maps], range(4)).costs
    np.testing.assert_allclose(other[np.ix_(order, order)], one)


def test_label_maps_are_read_from_files(tmp_path):
    paths = []
    for i, labels in enumerate(MAPS):
        paths.append(tmp_path / f"{i}.png")
        write_labels(paths[-1], np.where(labels < 0, 255, labels).astype(np.uint8))
    found = label_presence(paths, [3, 7, 9], ignore_label=255)
    np.testing.assert_array_equal(found, label_presence(MAPS, [3, 7, 9]))
    np.testing.assert_array_equal(found.sum(axis=0), [6, 9, 3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CoOccurrence([1.0, 2.0]), r"costs has shape \(2,\); expected \(L, L\)"),
        (lambda: CoOccurrence([[0, 1], [2, 0]]), r"costs\[0, 1\]=1 but costs\[1, 0\]=2"),
        (lambda: CoOccurrence(np.zeros((0, 0))), r"costs has shape \(0, 0\)"),
        (lambda: CoOccurrence(np.eye(2), -1.0), r"weight=-1.0; expected a number >= 0"),
        (lambda: CoOccurrence(np.eye(2), 1e30).label_set_costs(3), r"expected \(3, 3\)"),
        (lambda: LabelCosts([[1.0]]), r"costs has shape \(1, 1\)"),
        (lambda: LabelCosts([1.0, np.nan]), "costs holds NaN"),
        (lambda: LabelCosts([1.0], True), "weight=True is of type bool"),
        (lambda: LabelCosts([1.0]).label_set_costs(2), r"costs has shape \(1,\); expected 2"),
        (lambda: LabelCosts([1e300], 1e30).label_set_costs(1), r"weight \* costs holds NaN or inf"),
        (lambda: CoOccurrence.from_label_maps(MAPS, [3, 7]), r"y\[6\] holds the label 9; expected"),
        (lambda: LabelCosts.from_label_maps(MAPS[0], [3, 7], prior=0), "prior=0; expected"),
        (lambda: LabelCosts.from_label_maps(5, [3, 7]), "y is a int; expected a sequence of label"),
        (lambda: LabelCosts.from_label_maps([], [3, 7]), "y is empty; expected at least one"),
        (lambda: CoOccurrence.from_label_maps(MAPS[0], [3, 7]), r"y\[0\] has shape \(3,\); .*wrap"),
        (lambda: LabelCosts.from_label_maps([np.ones((2, 2))], [3, 7]), r"y\[0\] has dtype float"),
        (lambda: LabelCosts.from_label_maps(MAPS, [3]), "expected at least two different"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_whole_weights_that_overflow_int64_become_floats():
    found = CoOccurrence([[2**40]], 2**30).label_set_costs(1)
    assert found.dtype == np.float64
    assert found == 2.0**70


def test_terms_are_copied_and_models_with_them_are_saved(rng, tmp_path):
    terms = [
        GridTerm(0.5, contrast=None),
        CoOccurrence(np.array([[1.0, 4.0, 0.0], [4.0, 2.0, 0.5], [0.0, 0.5, 3.0]]), 2.5),
        LabelCosts((1, 2, 3)),
    ]
    for term in terms[1:]:
        for again in (pickle.loads(pickle.dumps(term)), copy.deepcopy(term)):
            np.testing.assert_array_equal(again.label_set_costs(3), term.label_set_costs(3))
    image = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    scene = Scene.from_logits(image, rng.normal(0, 3, (6, 7, 3)))
    for solver in ("mean_field", "cuts"):
        model = CRF(terms, solver=solver).fit([scene])
        hybridseg.save(model, tmp_path / "model.hseg")
        again = hybridseg.load(tmp_path / "model.hseg")
        assert type(again.terms[1]) is CoOccurrence
        np.testing.assert_array_equal(again.predict([scene])[0], model.predict([scene])[0])
        expected = model.energy(scene).energy(scene.prediction)
        assert again.energy(scene).energy(scene.prediction) == expected
