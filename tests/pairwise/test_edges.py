import numpy as np
import pytest

from hybridseg.inference import solve_cuts
from hybridseg.pairwise import EdgeTerm, Energy, energy
from hybridseg.pairwise.edges import edge_groups, edge_list, join_groups
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
