"""The vector of a CRF's parameters: names, limits, and the factors of the compatibility."""

import numpy as np
import pytest

from hybridseg.inference.mean_field.parameters import PARTS, Parameters, ParameterVector, what_of


def start(n_labels=3, widths=(), compatibility="potts"):
    return Parameters.start(
        [2.0, 0.0],
        widths,
        n_labels,
        unary_weight=1.5,
        compatibility=compatibility,
        label_bias=None,
    )


def test_names_of_parts():
    assert what_of("all") == {"weights", "widths", "compatibility"}
    assert what_of("all", ("weights", "bias")) == {"weights"}
    assert what_of("weights") == {"weights"}
    assert what_of(("bias",)) == {"weights", "bias"}
    with pytest.raises(ValueError, match=r"expected 'weights', 'all', or some of \['weights'\]"):
        what_of(("widths",), ("weights",))


@pytest.mark.parametrize("what", ["weights", "all", ("compatibility", "bias")])
@pytest.mark.parametrize("widths", [(), (1.0, 20.0, 8.0)])
def test_a_vector_keeps_the_values(what, widths, rng):
    parts = PARTS if widths else ("weights", "compatibility", "bias")
    layout = ParameterVector(start(widths=widths), what_of(what, parts))
    first = layout.vector(layout.first)
    point = first + rng.standard_normal(len(first)) / 4
    again = layout.vector(layout.unpack(point))
    point[2] = again[2]  # a weight of 0 remains 0
    np.testing.assert_allclose(again, point, rtol=1e-6, atol=1e-6)
    assert layout.unpack(point).weights[1] == 0


def test_factors_of_a_matrix_keep_its_zeros_and_symmetry(rng):
    given = np.array([[0, 2.0, 0], [2, 1, 3], [0, 3, 0]])
    layout = ParameterVector(start(compatibility=given), what_of("all"))
    point = layout.vector(layout.first) + rng.standard_normal(9)
    matrix = layout.unpack(point).compatibility
    np.testing.assert_allclose(matrix, matrix.T)
    np.testing.assert_array_equal(matrix == 0, given == 0)
    np.testing.assert_array_equal(np.diag(matrix), np.diag(given))


def test_gradients_of_factors_equal_differences(rng):
    given = np.array([[0, 2.0, 1], [2, 1, 3], [1, 3, 0]])
    layout = ParameterVector(start(compatibility=given), frozenset({"weights", "compatibility"}))
    point = layout.vector(layout.first)
    point[3:] += rng.standard_normal(6) / 4
    direction = rng.standard_normal((3, 3))

    def loss(at):
        return float((direction * layout.unpack(at).compatibility).sum())

    found = layout.unpack(point).factor_gradients(direction * 7.0, 7.0)
    gradient = np.concatenate([found["labels"], found["pairs"]])
    for k in range(6):
        step = 1e-5 * (np.arange(9) == 3 + k)
        expected = (loss(point + step) - loss(point - step)) / 2e-5
        assert gradient[k] == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_starts_change_weights_and_widths_apart_from_the_first():
    layout = ParameterVector(start(widths=(1.0, 20.0, 8.0)), what_of("all"))
    values = [layout.unpack(point) for point in layout.starts()]
    assert len(values) == 12
    assert {round(each.widths[0], 9) for each in values} == {1.0}
    assert {round(each.weights[0], 9) for each in values} == {0.5, 2.0, 8.0}
    assert len(ParameterVector(start(), what_of("weights")).starts()) == 3


def test_strength_zero_leaves_the_costs_and_one_leaves_the_values(rng):
    layout = ParameterVector(start(), frozenset({"weights", "compatibility", "bias"}))
    point = layout.vector(layout.first) + rng.standard_normal(12) / 4
    none = layout.unpack(layout.weakened(point, 0.0))
    assert none.unary_weight == pytest.approx(1.5)
    assert not none.weights.any()
    assert not none.bias.any()
    whole = layout.weakened(point, 1.0)
    point[2] = whole[2]
    np.testing.assert_allclose(whole, point, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("what", ["weights", "all"])
def test_disagreeing_with_spared_labels_costs_half_and_labels_listed_twice_are_kept(what, rng):
    layout = ParameterVector(start(4), what_of(what), kept=(0,))
    point = layout.vector(layout.first)
    point += rng.standard_normal(len(point)) / 4
    sparing = layout.sparing((1, 3, 3))
    halves = np.array([0, 1, 0, 0])
    expected = layout.unpack(point).compatibility / 2.0 ** (halves[:, np.newaxis] + halves)
    np.testing.assert_allclose(sparing.unpack(point).compatibility, expected)
    assert (layout.spared, layout.kept) == ((), (0,))
    named = sparing.of_labels(sparing.unpack(point))
    assert "compatibility" in named
    assert named["kept_labels"] == [0, 3]
    np.testing.assert_allclose(sparing.weakened(point, 1.0), layout.weakened(point, 1.0))


def test_half_the_cost_makes_no_label_a_cheap_compromise():
    layout = ParameterVector(start(4), what_of("weights")).sparing((1,))
    cost = layout.unpack(layout.vector(layout.first)).compatibility
    direct, through = cost[:, np.newaxis, :], cost[:, :, np.newaxis] + cost[np.newaxis]
    assert (direct <= through + 1e-12).all()  # the triangle inequality


def test_settled_values_have_the_same_costs_with_a_mean_of_one(rng):
    start = Parameters.start(
        [1.0, 2.0], [], 4, unary_weight=1.0, compatibility="potts", label_bias=None
    )
    vector = ParameterVector(start, what_of("all"))
    point = rng.standard_normal(len(vector.vector(start)))
    plain, settled = vector.unpack(point), vector.settled(point)
    assert settled.compatibility[np.triu_indices(4, 1)].mean() == pytest.approx(1)
    for one, other in zip(plain.weights, settled.weights, strict=True):
        np.testing.assert_allclose(one * plain.compatibility, other * settled.compatibility)
    weights = ParameterVector(start, what_of("weights"))
    assert (weights.settled(weights.vector(start)).weights == [1.0, 2.0]).all()


@pytest.mark.parametrize("what", ["weights", "all", ("compatibility", "bias"), ("bias",)])
def test_the_penalty_is_half_the_squares_of_the_logarithms(what, rng):
    layout = ParameterVector(start(4), what_of(what))
    point = layout.vector(layout.first)
    assert layout.penalty(point, 0.7)[0] == 0
    point += rng.standard_normal(len(point))
    value, slope = layout.penalty(point, 0.7)
    values = layout.unpack(point)
    logs = np.log(values.compatibility[np.triu_indices(4, 1)])
    assert value == pytest.approx(0.35 * (logs @ logs + values.bias @ values.bias))
    for k in range(len(point)):
        step = 1e-4 * (np.arange(len(point)) == k)
        sides = [layout.penalty(point + sign * step, 0.7)[0] for sign in (1, -1)]
        assert slope[k] == pytest.approx((sides[0] - sides[1]) / 2e-4, abs=1e-6)


def test_factors_shrink_with_the_strength(rng):
    layout = ParameterVector(start(4), what_of("all"))
    point = layout.vector(layout.first)
    point += rng.standard_normal(len(point)) / 4
    whole, half = (layout.unpack(layout.weakened(point, s)) for s in (1.0, 0.5))
    np.testing.assert_allclose(half.logs, whole.logs / 2)
    np.testing.assert_allclose(half.weights, whole.weights / 2)
    np.testing.assert_array_equal(layout.unpack(layout.weakened(point, 0.0)).weights, 0)
