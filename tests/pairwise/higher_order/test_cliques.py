"""Costs of cliques equal loops; members are checked, cleaned and cut to boxes."""

import numpy as np
import pytest

from hybridseg.inference import solve_cuts, solve_mean_field
from hybridseg.pairwise import Cliques, CliqueTerm, Energy, GridTerm
from hybridseg.pairwise.higher_order.cliques import join_cliques
from hybridseg.pairwise.terms import scaled
from tests.oracles import cliques as oracle
from tests.pairwise.higher_order.clique_problems import random_cliques


def cost_of(energy, labels):
    return energy.energy(labels) - energy.with_terms([]).energy(labels)


@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2), (1, 1)])
def test_the_energy_has_the_costs_of_the_loops(rng, shape, weighted, dtype):
    n = int(np.prod(shape))
    cliques = random_cliques(rng, n, 6, dtype, most=1.0, weighted=weighted, least=1)
    energy = Energy(np.zeros((*shape, 4), int), [CliqueTerm(cliques)])
    for _ in range(20):
        labels = rng.integers(0, 4, shape)
        near = {"rel": 0 if dtype is int else 1e-12}
        expected = oracle.cost(labels, cliques, 4)
        assert cliques.cost(labels.ravel(), 4) == pytest.approx(expected, **near)
        assert energy.energy(labels) == pytest.approx(expected, **near)
        assert scaled(energy.terms[0], 3).of.cost(labels.ravel(), 4) == pytest.approx(3 * expected)


def test_a_clique_that_agrees_costs_nothing_and_permuted_labels_cost_the_same(rng):
    cliques = random_cliques(rng, 12, 6, most=1.0)
    labels = rng.integers(0, 3, 12)
    assert cliques.cost(np.full(12, 2), 3) == 0
    for order in ([1, 2, 0], [2, 1, 0]):
        assert cliques.cost(np.array(order)[labels], 3) == cliques.cost(labels, 3)
    small = Cliques([0, 0, 1], [3], [5, 5], [9, 9])  # empty, and one site
    assert small.cost(labels, 3) == 0
    assert cliques.cost(np.zeros(12, int), 1) == 0  # one label


def test_sums_beyond_53_bits_are_exact():
    big = 2**54
    cliques = Cliques([0, 2], [0, 1], [1], [big], [big + 1, big])
    assert cliques.cost(np.array([0, 1]), 2) == big
    loose = Cliques([0, 3], [0, 1, 2], [1], [2**60], [big + 1, big + 3, 1])
    assert loose.cost(np.array([0, 1, 0]), 2) == big + 2


def test_sites_that_are_not_valid_belong_to_no_clique(rng):
    valid = rng.random((3, 4)) < 0.6
    cliques = random_cliques(rng, 12, 6, most=1.0)
    energy = Energy(np.zeros((3, 4, 3)), [CliqueTerm(cliques)], valid=valid)
    assert valid.ravel()[energy.cliques.site].all()
    labels = rng.integers(0, 3, (3, 4))
    kept = valid.ravel()[cliques.site]
    left = Cliques.of_members(
        cliques.clique[kept], cliques.site[kept], cliques.slope, cliques.cap, cliques.weight[kept]
    )
    assert energy.energy(labels) == pytest.approx(oracle.cost(labels, left, 3))
    none = Energy(np.zeros((3, 4, 3)), [CliqueTerm(cliques)], valid=np.zeros((3, 4), bool))
    assert len(none.cliques) == 0
    assert none.energy(labels) == 0


def test_a_site_that_occurs_twice_counts_with_both_weights(rng):
    twice = Cliques([0, 5], [0, 3, 3, 1, 0], [2], [20], [1, 2, 3, 4, 5])
    once = Cliques([0, 3], [0, 1, 3], [2], [20], [6, 4, 5])
    found = Energy(np.zeros((2, 2, 2)), [CliqueTerm(twice)]).cliques
    for name in ("first", "site", "slope", "cap", "weight"):
        np.testing.assert_array_equal(getattr(found, name), getattr(once, name))
    for labels in rng.integers(0, 2, (8, 4)):
        assert twice.cost(labels, 2) == found.cost(labels, 2)


def test_cliques_without_a_cost_are_left_out():
    free = Cliques([0, 0, 1, 3, 5, 7], [4, 2, 3, 0, 1, 0, 1], [5, 5, 0, 3, 1], [9, 9, 9, 0, 1])
    kept = Energy(np.zeros((2, 3, 2)), [CliqueTerm(free)]).cliques
    assert kept.site.tolist() == [0, 1]
    assert kept.exact


def test_members_in_any_order_and_joined_records(rng):
    cliques = random_cliques(rng, 12, 5, weighted=True)
    order = rng.permutation(len(cliques.site))
    mixed = Cliques.of_members(
        *(cliques.clique[order], cliques.site[order], cliques.slope, cliques.cap),
        weight=cliques.weight[order],
    )
    others = random_cliques(rng, 12, 3, float)
    labels = rng.integers(0, 3, 12)
    assert mixed.cost(labels, 3) == cliques.cost(labels, 3)
    both = join_cliques([cliques, others])
    expected = cliques.cost(labels, 3) + others.cost(labels, 3)
    assert both.cost(labels, 3) == pytest.approx(expected)
    assert (both.exact, cliques.exact) == (False, True)
    assert len(join_cliques([])) == 0
    terms = [CliqueTerm(cliques), CliqueTerm(others)]
    assert cost_of(Energy(np.zeros((12, 3)), terms), labels) == pytest.approx(expected)


def test_a_box_has_the_members_in_it_with_caps_in_proportion():
    numbers = np.arange(24).reshape(4, 6)
    cliques = Cliques([0, 6, 10], [*numbers[0], *numbers[1:3, 4:].ravel()], [2, 3], [6, 4])
    part = cliques.within((4, 6), (slice(0, 2), slice(3, 6)))
    assert part.first.tolist() == [0, 3, 5]
    assert part.site.tolist() == [0, 1, 2, 4, 5]
    assert (part.slope.tolist(), part.cap.tolist()) == ([2, 3], [3, 2])
    assert cliques.within((4, 6), (slice(0, 4), slice(0, 6))) is cliques
    outside = cliques.within((4, 6), (slice(3, 4), slice(0, 2)))
    assert len(outside.on(2, None)) == 0


def test_arrays_are_not_written_to_and_may_be_read_only(rng):
    made = random_cliques(rng, 12, 4, float, weighted=True)
    arrays = [made.first, made.site, made.slope, made.cap, made.weight]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    energy = Energy(rng.normal(0, 1, (3, 4, 2)), [CliqueTerm(Cliques(*arrays))])
    solve_mean_field(energy)
    cut = solve_cuts(energy)
    assert energy.energy(cut.labels) == pytest.approx(cut.energy, rel=1e-12)
    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, kept)


GOOD = {"first": [0, 2], "site": [0, 1], "slope": [1.0], "cap": [2.0], "weight": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": [0, 3]}, r"first has 2 numbers; expected C \+ 1 numbers that rise from 0 to 2"),
        ({"first": [1, 2]}, "rise from 0 to 2"),
        ({"first": []}, "first has 0 numbers"),
        ({"first": [0, 2, 1, 2], "slope": [1] * 3, "cap": [1] * 3}, "rise from 0 to 2"),
        ({"first": [[0, 2]]}, r"first has shape \(1, 2\)"),
        ({"site": [0, -1]}, "site holds -1"),
        ({"site": [0.0, 1.0]}, "site has dtype float64; expected integers"),
        ({"slope": [1, 2]}, r"slope has shape \(2,\); expected \(1,\)"),
        ({"slope": [-1.0]}, "slope holds -1; expected costs"),
        ({"slope": ["a"]}, "slope has dtype"),
        ({"cap": [np.nan]}, "cap holds NaN"),
        ({"cap": [np.inf]}, "cap holds NaN or infinite"),
        ({"cap": [np.uint64(2**63)]}, "overflows int64: pass floats"),
        ({"weight": [1.0]}, r"weight has shape \(1,\); expected \(2,\)"),
        ({"slope": [2**61], "cap": [1], "weight": [1, 1]}, "integers whose sum may reach"),
        ({"slope": [1e308], "weight": [10.0, 10.0]}, "overflows float64"),
    ],
)
def test_bad_cliques_are_named(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Cliques(**(GOOD | change))


def test_bad_members_and_terms_are_named():
    with pytest.raises(ValueError, match=r"clique holds 1; expected numbers 0..0"):
        Cliques.of_members([0, 1], [0, 1], [1], [1])
    with pytest.raises(ValueError, match=r"clique has shape \(1,\) and site \(2,\)"):
        Cliques.of_members([0], [0, 1], [1], [1])
    with pytest.raises(TypeError, match=r"of is a list; expected Cliques"):
        CliqueTerm([0, 1])
    term = CliqueTerm(Cliques([0, 2], [0, 7], [1], [1]))
    with pytest.raises(ValueError, match=r"CliqueTerm.cliques\(sites\): site holds 7; .* 0..5"):
        Energy(np.zeros((2, 3, 2)), [term]).energy(np.zeros((2, 3), int))

    class Odd:
        def cliques(self, sites):
            return [1, 2]

    with pytest.raises(TypeError, match=r"Odd.cliques\(sites\) is a list; expected Cliques"):
        solve_mean_field(Energy(np.zeros((2, 3, 2)), [GridTerm(1.0, None), Odd()]))
