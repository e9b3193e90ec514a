"""Arrays, masks, numbers, options and steps are accepted, or refused with their name."""

import warnings
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from inspect import currentframe
from types import FunctionType

import numpy as np
import pytest

from hybridseg.arguments import random_generator, read_only
from hybridseg.validation import (
    as_costs,
    as_image,
    as_label_map,
    as_mask,
    as_numbers,
    as_singles,
    as_spacing,
    check_magnitude,
    check_number,
    check_option,
    check_proba,
    only_valid,
    said_once,
    warn_caller,
)


def test_mask():
    assert as_mask(np.array([[0, 1]]), (1, 2)).dtype == bool
    with pytest.raises(TypeError, match="expected a boolean mask"):
        as_mask(np.array([[0.5, 1]]), (1, 2))


@pytest.mark.parametrize(
    ("spacing", "expected"), [(None, (1, 1)), (2.5, (2.5, 2.5)), ([1, 3], (1, 3))]
)
def test_spacing(spacing, expected):
    assert as_spacing(spacing, 2) == expected


@pytest.mark.parametrize("spacing", [(1, 2, 3), (1, 0), (1, -1), (1, np.nan)])
def test_bad_spacing(spacing):
    with pytest.raises(ValueError, match="expected 2 positive numbers"):
        as_spacing(spacing, 2)


def test_numbers():
    assert check_number(3, "n", minimum=0, integer=True) == 3
    assert check_number(np.float32(0.5), "x", minimum=0, strict=True) == 0.5
    with pytest.raises(TypeError, match="n=2.5 is of type float; expected an integer"):
        check_number(2.5, "n", integer=True)
    with pytest.raises(TypeError, match="expected a number"):
        check_number(True, "n")
    with pytest.raises(ValueError, match=r"x=0; expected a number > 0"):
        check_number(0, "x", minimum=0, strict=True)
    with pytest.raises(ValueError, match=r">= 0 and <= 1"):
        check_number(float("nan"), "x", minimum=0, maximum=1)


def test_options():
    assert check_option("a", "mode", ["a", "b"]) == "a"
    with pytest.raises(ValueError, match="mode='c'; expected one of 'a', 'b'"):
        check_option("c", "mode", ["a", "b"])


def test_numbers_that_do_not_fit():
    for value in (1e31, -1e31, 10**40, 10**400, np.longdouble("1e4000")):
        with pytest.raises(ValueError, match="x.*expected a number finite, of a size up to 1e.30"):
            check_number(value, "x")
    for value in (2**63, -(2**63) - 1, 10**400):
        with pytest.raises(ValueError, match="n.*of a size up to 9.2"):
            check_number(value, "n", integer=True)
    for value in (Fraction(1, 2), Decimal(1), "1", None, 1j, [1], np.array(1.0), np.bool_(True)):
        with pytest.raises(TypeError, match="x=.*expected a number"):
            check_number(value, "x")
    assert check_number(np.float16(2), "x", minimum=0, strict=True) == 2
    assert check_number(1e-300, "x", minimum=0, strict=True) == 1e-300


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array of mine")


class Unplugged:
    def __array__(self, dtype=None, copy=None):
        raise OSError("the disk is gone")


@pytest.mark.parametrize(
    "values",
    [[[1], [1, 2]], ["a"], [None], [1j], np.zeros(2, "M8[s]"), np.zeros(2, "u1,f4"), Unreadable()],
)
def test_values_that_are_no_arrays_of_numbers(values):
    for call in (as_image, as_costs, as_label_map, lambda a: as_mask(a, (2,))):
        with pytest.raises(TypeError, match="expected"):
            call(values)
    with pytest.raises(TypeError, match="depth .*expected real numbers"):
        as_numbers(values, "depth")


def test_masked_arrays_are_refused_where_they_hide_something():
    values = np.ma.masked_array([1.0, 2.0], mask=[False, False])
    np.testing.assert_array_equal(as_numbers(values, "x"), [1, 2])
    values[1] = np.ma.masked
    with pytest.raises(TypeError, match="x is a masked array; expected a plain array: drop it"):
        as_numbers(values, "x", cure="drop it")


def test_errors_of_a_disk_pass():
    with pytest.raises(OSError, match="the disk is gone"):
        as_image(Unplugged())


@pytest.mark.parametrize("spacing", [1e-300, 1e300, (1e-16, 1), (1, 1e16), (1e-9, 1)])
def test_spacings_that_cannot_be_added_up(spacing):
    with pytest.raises(ValueError, match="spacing=.*(another unit|a factor of)"):
        as_spacing(spacing, 2)


@pytest.mark.parametrize("spacing", ["1", ["a", "b"], True, [1, None], [1, 1j], [[1], [1, 2]]])
def test_spacings_that_are_no_numbers(spacing):
    with pytest.raises(TypeError, match="spacing.*expected 2 positive numbers"):
        as_spacing(spacing, 2)


def test_masks_are_booleans_of_the_shape():
    valid = np.array([[True, False]])
    np.testing.assert_array_equal(as_mask([[1, 0]], (1, 2)), valid)
    np.testing.assert_array_equal(as_mask(valid, (1, 2)), valid)
    with pytest.raises(ValueError, match=r"seen has shape \(1, 2\); expected the image's \(2, 1\)"):
        as_mask(valid, (2, 1), name="seen")
    for bad in ([[1, 2]], [[-1, 0]], [[1.0, 0.0]]):
        with pytest.raises(TypeError, match="expected a boolean mask"):
            as_mask(bad, (1, 2))


def test_only_valid_puts_another_number_where_not_valid(rng):
    values, valid = rng.random((3, 4, 2)), rng.random((3, 4)) < 0.5
    found = only_valid(values, valid, instead=7.0)
    np.testing.assert_array_equal(found[valid], values[valid])
    assert (found[~valid] == 7).all()
    assert (only_valid(values, valid)[~valid] == 0).all()
    for mask in (None, np.ones((3, 4), bool), np.ones((4, 3), bool)):  # of another shape: as it is
        assert only_valid(values, mask) is values


@pytest.mark.parametrize("size", [1e30, -1e30])
def test_magnitudes_end_at_what_sums_can_hold(size):
    values = np.array([0.0, size])
    check_magnitude(values, "x")
    assert as_singles(values, "x").dtype == np.float32
    with pytest.raises(ValueError, match=r"x holds a number of size 1.01e\+30; expected at most"):
        check_magnitude(1.01 * values, "x")
    with pytest.raises(ValueError, match="x holds NaN or infinite values; mask them"):
        check_magnitude(values * np.nan, "x", cure="mask them")
    check_magnitude(np.array([2**62]), "x", largest=1.0)  # integers are for others to bound
    check_magnitude(np.empty(0), "x")


@pytest.mark.parametrize("off", [0.0, 0.015, -0.015])
def test_probabilities_may_be_off_by_rounding_and_no_further(off):
    check_proba(np.array([[0.4, 0.6 + off]]), "p")
    with pytest.raises(
        ValueError,
        match="p has the minimum 0, and its sums over the last axis range from .*, so; expected",
    ):
        check_proba(np.array([[0.4, 0.6], [0.4, 0.6 + np.copysign(0.03, off)]]), "p", where=", so")


@pytest.mark.parametrize("proba", [[[-0.01, 1.01]], [[np.nan, 0.5]], [[np.inf, 0]], [[0.7, 0.7]]])
def test_values_that_are_no_probabilities(proba):
    with pytest.raises(ValueError, match="expected probabilities that sum to one"):
        check_proba(np.array(proba), "p")
    check_proba(np.empty((0, 3)), "p")
    check_proba(np.array([[-1e-7, 1.0]]), "p")


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_limits_belong_to_the_range_unless_strict(limit):
    bounds = {"minimum": 0, "maximum": 1}
    assert check_number(limit, "x", **bounds) == limit
    with pytest.raises(ValueError, match=r"expected a number > 0 and < 1"):
        check_number(limit, "x", **bounds, strict=True)
    with pytest.raises(ValueError, match=r"expected a number >= 0 and <= 1"):
        check_number(limit + np.copysign(1e-9, limit - 0.5), "x", **bounds)
    assert check_number(2**63 - 1, "n", integer=True) == 2**63 - 1
    with pytest.raises(ValueError, match="of a size up to"):
        check_number(2**63, "n", integer=True)


def test_numbers_within_strict_limits_and_at_the_largest_size_are_taken():
    assert check_number(0.5, "x", minimum=0, maximum=1, strict=True) == 0.5
    assert check_number(1.5, "x", minimum=1, strict=True) == 1.5
    assert check_number(0.5, "x", maximum=1, strict=True) == 0.5
    for most, integer in [(1e30, False), (2**63 - 1, True)]:
        for value in (most, -most):
            assert check_number(value, "x", integer=integer) == value


@pytest.mark.parametrize(
    ("value", "expected"), [(-1.0, ">= 0 and <= 1"), (2.0, ">= 0 and <= 1"), (np.nan, "finite")]
)
def test_the_largest_size_is_told_of_numbers_that_are_within_their_limits(value, expected):
    limits = {} if expected == "finite" else {"minimum": 0, "maximum": 1}
    with pytest.raises(ValueError, match=rf"expected a number {expected}\.$"):
        check_number(value, "x", **limits)
    with pytest.raises(ValueError, match=r"expected a number >= 0, of a size up to 1e\+30\.$"):
        check_number(1e31, "x", minimum=0)


def test_a_generator_follows_from_what_scikit_learn_accepts():
    def draws(random_state):
        return random_generator(random_state).random(3).tolist()

    assert draws(5) == np.random.default_rng(5).random(3).tolist()
    given = np.random.default_rng(5)
    assert random_generator(given) is given
    assert draws(np.random.RandomState(5)) == draws(np.random.RandomState(5))
    state, other = np.random.RandomState(5), np.random.RandomState(5)
    assert draws(state) != draws(state)
    for _ in range(2):
        other.randint(2**31 - 1)
    assert state.randint(2**31) == other.randint(2**31)
    assert draws(None) != draws(None)


@pytest.mark.parametrize("end", [1e-15, 1e15])
def test_spacings_end_where_their_squares_do(end):
    assert as_spacing(end, 3) == (end,) * 3
    beyond = end * (0.99 if end < 1 else 1.01)
    with pytest.raises(ValueError, match="use another unit of length"):
        as_spacing(beyond, 3)


def test_axes_differ_by_a_million_at_most():
    assert as_spacing((1.0, 1e6), 2) == (1.0, 1e6)
    with pytest.raises(ValueError, match="give all of them in the same unit"):
        as_spacing((1.0, 1.01e6), 2)
    with pytest.raises(ValueError, match=r"expected 3 positive numbers, one for each axis \(plane"):
        as_spacing((1.0, 2.0), 3)


def test_warnings_point_at_the_caller_outside_of_the_package():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        line = currentframe().f_lineno + 1
        warn_caller("once", FutureWarning)
        with through_the_standard_library():
            pass
    assert [(str(w.message), w.category) for w in said] == [
        ("once", FutureWarning),
        ("within", UserWarning),
    ]
    assert [w.filename for w in said] == [__file__, __file__]
    assert said[0].lineno == line


@contextmanager
def through_the_standard_library():
    warn_caller("within")
    yield


def test_warnings_of_a_context_of_the_package_point_at_its_with_statement():
    def warn_and_yield():
        warn_caller("opened")
        yield

    package = {"__name__": "hybridseg.invented", "warn_caller": warn_caller}
    opened = contextmanager(FunctionType(warn_and_yield.__code__, package))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        line = currentframe().f_lineno + 1
        with opened():
            pass
    assert [(each.filename, each.lineno) for each in said] == [(__file__, line)]


def test_each_call_gives_equal_warnings_once():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            with said_once(), said_once():
                for message in ("one", "two", "one"):
                    warn_caller(message)
            warn_caller("one")
    assert [str(w.message) for w in said] == ["one", "two", "one"] * 2


def test_a_read_only_view_is_of_the_same_memory(rng):
    array = rng.random((3, 4))
    view = read_only(array)
    assert np.shares_memory(view, array)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    array[0] = 1  # the array itself stays as it was
