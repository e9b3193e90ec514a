"""Labelings, seeds and label costs are accepted unchanged, or refused with their name."""

import numpy as np
import pytest

from hybridseg.pairwise.labels import as_label_costs, as_label_indices, as_seeds

INTEGERS = [np.int8, np.uint8, np.int32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4), (6,)])
def test_complete_labelings_come_back_in_int64(rng, dtype, shape):
    given = rng.integers(0, 3, shape).astype(dtype)
    given.setflags(write=False)
    for found in (as_label_indices(given, shape, 3), as_seeds(given, shape, 3)):
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, given)
        found[...] = 0  # a copy
    assert given.any()


def test_seeds_may_be_unknown_and_labels_may_not(rng):
    given = rng.integers(-1, 3, (4, 5))
    given[0, 0] = -1
    found = as_seeds(given, (4, 5), 3)
    np.testing.assert_array_equal(found[given >= 0], given[given >= 0])
    assert (found[given < 0] < 0).all()
    with pytest.raises(ValueError, match=r"init holds values from -1 .*index 0\.\.2"):
        as_label_indices(given, (4, 5), 3, name="init")


@pytest.mark.parametrize("check", [as_label_indices, as_seeds])
def test_values_beyond_the_labels_are_refused(check):
    last = np.full((2, 2), 2)
    np.testing.assert_array_equal(check(last, (2, 2), 3), last)
    with pytest.raises(ValueError, match=r"holds .*2; expected .* 0\.\.1"):
        check(last, (2, 2), 2)
    with pytest.raises(ValueError, match=r"has shape \(2, 2\)"):
        check(last, (2, 3), 3)
    with pytest.raises((TypeError, ValueError), match="labels|seeds"):
        check(last + 0.5, (2, 2), 3)


@pytest.mark.parametrize("dtype", [*INTEGERS, np.float32, np.float64])
def test_label_costs_keep_their_kind(dtype):
    given = np.array([3, 0, 7], dtype)
    found = as_label_costs(given, 3)
    assert found.dtype == (np.float64 if np.dtype(dtype).kind == "f" else np.int64)
    np.testing.assert_array_equal(found, given)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([1, 2], r"label_costs has shape \(2,\); expected 3"),
        ([[1, 2, 3]], r"label_costs has shape \(1, 3\)"),
        (["1", "2", "3"], "label_costs has dtype <U1"),
        ([1.0, np.inf, 0.0], "label_costs holds"),
        ([1.0, np.nan, 0.0], "label_costs holds"),
        (
            np.array([2**63, 0, 0], np.uint64),
            "label_costs holds 9223372036854775808, which overflows",
        ),
    ],
)
def test_other_label_costs_are_refused(given, match):
    with pytest.raises((TypeError, ValueError), match=match):
        as_label_costs(given, 3)
