import numpy as np
import pytest

from hybridseg.inference import solve_cuts
from hybridseg.pairwise import EdgeTerm, Energy, energy
from hybridseg.pairwise.edges import edge_groups, edge_list, edges_in, join_groups, scaled_edges
from tests.inference.mean_field.problems import random_weights
from tests.oracles import energy as oracle


def test_joined_edges_have_the_energy_of_the_parts(rng):
    shape, labels = (4, 5), rng.integers(0, 3, (4, 5))
    unary = rng.integers(0, 9, (4, 5, 3))
    one = {(0, 1): rng.integers(0, 9, (4, 4)), (1, -1): rng.integers(0, 9, (3, 4))}
    other = {(0, -1): rng.integers(0, 9, (4, 4)), (1, 0): rng.integers(0, 9, (3, 5))}
    i = rng.integers(0, 20, 6)
    listed = (i, (i + rng.integers(1, 20, 6)) % 20, rng.integers(0, 9, 6))
    joined = join_groups([edge_groups(w, shape) for w in (one, other, listed)])
    assert [group.offset for group in joined] == [(0, 1), (1, -1), (1, 0), None]
    nothing = np.zeros_like(unary)
    expected = sum(energy(labels, nothing, w) for w in (one, other, listed))
    i, j, w = edge_list(joined, shape)
    assert energy(labels.ravel(), nothing.reshape(20, 3), (i, j, w)) == expected
    assert w.dtype == np.int64


def test_a_list_joins_pixels_in_row_major_order(rng):
    labels, unary = rng.integers(0, 2, (3, 4)), np.zeros((3, 4, 2))
    weights = [rng.random((2, 4)), rng.random((3, 3))]
    edges = oracle.grid_edges(weights, (3, 4))
    i, j = ([int(np.ravel_multi_index(edge[end], (3, 4))) for edge in edges] for end in (0, 1))
    listed = (i, j, [edge[2] for edge in edges])
    assert energy(labels, unary, listed) == pytest.approx(energy(labels, unary, weights))
    with pytest.raises(ValueError, match="numbers from 0 to 11"):
        energy(labels, unary, ([0], [12], [1.0]))


def test_three_arrays_of_a_volume_are_its_axes(rng):
    labels, unary = rng.integers(0, 2, (2, 3, 4)), np.zeros((2, 3, 4, 2))
    axes = [rng.random((1, 3, 4)), rng.random((2, 2, 4)), rng.random((2, 3, 3))]
    expected = oracle.energy(labels, unary, oracle.grid_edges(axes, (2, 3, 4)))
    assert energy(labels, unary, axes) == pytest.approx(expected)


def test_integer_weights_of_several_terms_are_added_exactly_or_refused():
    """A sum beyond 64 bits would silently wrap to a negative weight."""
    great = np.array([[2**62, 1]])
    twice = [EdgeTerm({(0, 1): great}), EdgeTerm({(0, -1): great})]
    unary = np.zeros((1, 3, 2), int)
    with pytest.raises(ValueError, match="terms hold integer weights .* overflow int64"):
        Energy(unary, twice).energy([[0, 1, 1]])
    with pytest.raises(ValueError, match="terms hold integer weights"):
        solve_cuts(Energy(unary, twice))
    odd = np.array([[2**53 + 1, 1]])
    pair = [EdgeTerm({(0, 1): odd}), EdgeTerm({(0, 1): np.array([[2, 1]])})]
    assert join_groups([edge_groups(term.weights, (1, 3)) for term in pair])[0].weight.tolist() == [
        [2**53 + 3, 2]
    ]


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5)])
def test_edges_in_a_box_are_those_with_both_ends_in_it(shape, listed, rng):
    weights = random_weights(rng, shape, len(shape))
    if listed:
        weights = edge_list(edge_groups(weights, shape), shape)
    groups = edge_groups(weights, shape)
    box = (*(slice(1, n) for n in shape[:-1]), slice(1, 3))
    sides = tuple(side.stop - side.start for side in box)
    cut = edges_in(groups, shape, box)
    assert isinstance(cut, tuple) == listed
    found = edge_list(edge_groups(cut, sides), sides)
    numbers = np.full(shape, -1)
    numbers[box] = np.arange(np.prod(sides)).reshape(sides)
    i, j, w = edge_list(groups, shape)
    i, j = numbers.ravel()[i], numbers.ravel()[j]
    inside = (i >= 0) & (j >= 0)
    expected = sorted(zip(i[inside], j[inside], w[inside], strict=True))
    assert sorted(zip(*found, strict=True)) == expected
    everything = tuple(slice(0, n) for n in shape)
    whole = edge_list(edge_groups(edges_in(groups, shape, everything), shape), shape)
    assert sorted(zip(*whole, strict=True)) == sorted(zip(*edge_list(groups, shape), strict=True))


def test_no_edges_in_a_box():
    i, j, w = edges_in([], (4, 5), (slice(0, 2), slice(0, 2)))
    assert len(i) == len(j) == len(w) == 0


def test_scaled_edges_keep_their_form(rng):
    weights = random_weights(rng, (4, 5), 1)
    forms = [weights, list(weights.values()), ([0, 1], [2, 3], [5, 7])]
    for form in forms:
        own, many = edge_groups(form, (4, 5)), edge_groups(scaled_edges(form, 0.5), (4, 5))
        for one, other in zip(own, many, strict=True):
            assert one.offset == other.offset
            np.testing.assert_allclose(other.weight, one.weight * 0.5)
