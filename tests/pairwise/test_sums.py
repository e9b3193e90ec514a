"""Sums of integers are exact."""

import numpy as np
import pytest

from hybridseg.pairwise import energy
from hybridseg.pairwise.sums import exact_sum, exact_sum_of_products


def test_integers_are_summed_exactly_where_floats_would_round():
    unary = np.array([[[2**53, 0], [1, 0]]])
    found = energy([[0, 0]], unary, [np.zeros((0, 2), int), np.array([[0]])])
    assert found == float(2**53 + 1)
    many = np.full((1, 70000, 1), 2**24 + 1, np.float32)
    weights = [np.zeros((0, 70000)), np.zeros((1, 69999))]
    assert energy(np.zeros((1, 70000), int), many, weights) == many.astype(np.float64).sum()


def wide(rng, shape):
    """Positive and negative integers of every size up to 63 bits."""
    return rng.integers(-(2**63), 2**63 - 1, shape) >> rng.integers(0, 60, shape)


@pytest.mark.parametrize("shape", [(0,), (1,), (300,), (7, 11)])
def test_integers_are_summed_as_python_sums_them(rng, shape):
    for _ in range(10):
        values, where = wide(rng, shape), rng.random(shape) < 0.5
        assert exact_sum(values) == sum(map(int, values.flat))
        assert exact_sum(values, where=where) == sum(map(int, values[where]))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int32, np.int64])
def test_narrow_integers_do_not_wrap(dtype):
    most = 1 if dtype is np.bool_ else int(np.iinfo(dtype).max)
    assert exact_sum(np.full(300, most, dtype)) == 300 * most


@pytest.mark.parametrize("kinds", [1, 5, 300])
def test_products_are_summed_as_python_sums_them(rng, kinds):
    """The sum is exact even if a single product exceeds int64."""
    for _ in range(10):
        weight, factor = wide(rng, 300), rng.choice(wide(rng, kinds), 300)
        expected = sum(int(w) * int(f) for w, f in zip(weight, factor, strict=True))
        assert exact_sum_of_products(weight, factor) == expected
        small = sum(int(w) * int(f) for w, f in zip(weight >> 40, factor >> 40, strict=True))
        assert exact_sum_of_products(weight >> 40, factor >> 40) == small


def test_floats_are_summed_in_float64(rng):
    values = rng.normal(size=(40, 50)).astype(np.float32)
    assert exact_sum(values) == pytest.approx(values.astype(np.float64).sum(), rel=1e-12)
    weight = rng.integers(0, 9, (40, 50))
    products = (weight * values.astype(np.float64)).sum()
    assert exact_sum_of_products(weight, values) == pytest.approx(products, rel=1e-12)


def test_products_beyond_64_bits_keep_their_fractions_if_either_is_a_float():
    large = np.array([2.0**62 + 2**20, 0.5])
    assert exact_sum_of_products(np.array([1.5, 0.5]), large) == 1.5 * large[0] + 0.25
    for whole in ([2**40, 4], [2**62, 4]):
        weight, factor = np.array([2.0**30 + 0.5, 0.25]), np.array(whole)
        expected = (2.0**30 + 0.5) * whole[0] + 1
        assert exact_sum_of_products(weight, factor) == expected
        assert exact_sum_of_products(factor, weight) == expected
