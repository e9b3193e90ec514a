"""Every form of compatibility becomes a symmetric matrix of finite costs."""

import numpy as np
import pytest

from hybridseg.pairwise.compatibility import as_compatibility, is_potts


def symmetric(rng, n_labels):
    matrix = rng.normal(size=(n_labels, n_labels))
    return matrix + matrix.T


@pytest.mark.parametrize("n_labels", [1, 2, 7])
def test_potts_is_zero_for_equal_labels_and_one_for_others(n_labels):
    matrix = as_compatibility("potts", n_labels)
    np.testing.assert_array_equal(matrix, 1 - np.eye(n_labels))
    assert is_potts(matrix)
    np.testing.assert_array_equal(as_compatibility(matrix, n_labels), matrix)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, np.bool_])
def test_symmetric_costs_come_back_in_float64(rng, dtype):
    given = np.abs(10 * symmetric(rng, 4)).astype(dtype)
    given.setflags(write=False)
    found = as_compatibility(given, 4)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, given)
    np.testing.assert_array_equal(as_compatibility(given.tolist(), 4), given)
    found[0, 0] += 1  # a copy
    assert found[0, 0] != given[0, 0]


def test_rounding_errors_are_evened_out(rng):
    given = symmetric(rng, 5)
    given[1, 2] += 1e-8
    found = as_compatibility(given, 5)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found, given, atol=1e-8)


def test_only_exact_potts_is_potts(rng):
    near = 1 - np.eye(3)
    near[0, 1] = near[1, 0] = np.nextafter(1, 2)
    for other in (near, 2 - 2 * np.eye(3), np.ones((3, 3)), symmetric(rng, 3)):
        assert not is_potts(as_compatibility(other, 3))


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ("pots", ValueError, "mu='pots'; expected"),
        ([["a", "b"], ["b", "a"]], ValueError, "mu has dtype"),
        (np.zeros((3, 3)), ValueError, r"mu has shape \(3, 3\)"),
        ([[0, np.nan], [np.nan, 0]], ValueError, "mu holds NaN or infinite costs"),
        ([[0, 1e21], [1e21, 0]], ValueError, r"mu holds a cost of size 1e\+21"),
        ([[0, 2**53 + 2], [2**53 + 2, 0]], ValueError, "mu holds the integer 90071992547409"),
        ([[0, 1], [2, 0]], ValueError, r"mu\[0, 1\]=1 but mu\[1, 0\]=2"),
    ],
)
def test_other_costs_are_refused_by_name(given, error, match):
    with pytest.raises(error, match=match):
        as_compatibility(given, 2, name="mu")


@pytest.mark.parametrize("n_labels", [0, -1, 2**14 + 1])
def test_numbers_of_labels_are_bounded(n_labels):
    with pytest.raises(ValueError, match=f"n_labels={n_labels}"):
        as_compatibility("potts", n_labels)


@pytest.mark.parametrize("sign", [1, -1])
def test_costs_end_where_sums_of_them_stay_finite_and_exact(sign):
    """Floats at 1e20, and integers at 2**53, above which float64 lacks some of them."""
    swapped = sign * np.array([[0, 1], [1, 0]])
    for largest in (1e20, 2**53):
        assert as_compatibility(largest * swapped, 2)[0, 1] == sign * largest
    assert as_compatibility(float(2**60) * swapped, 2)[0, 1] == sign * 2.0**60
    with pytest.raises(ValueError, match=r"compatibility holds a cost of size 1.001e\+20"):
        as_compatibility(1.001e20 * swapped, 2)
    with pytest.raises(ValueError, match="compatibility holds the integer 9007199254740993;"):
        as_compatibility((2**53 + 1) * swapped, 2)


def test_integers_are_never_evened_out():
    given = np.array([[0, 10**7], [10**7 + 1, 0]])
    with pytest.raises(ValueError, match=r"\[0, 1\]=10000000 but .*\[1, 0\]=10000001"):
        as_compatibility(given, 2)
    as_compatibility(given.astype(float), 2)
