"""Label maps are read one at a time, as indices of the sorted classes."""

import numpy as np
import pytest

from hybridseg.pairwise.indexed_maps import indexed_maps


def test_maps_become_indices_of_the_sorted_classes():
    n_maps, n_labels, maps = indexed_maps(
        [[[9, 2], [-3, 7]], [[255, 9]]], [7, 2, 9], ignore_label=255
    )
    assert (n_maps, n_labels) == (2, 3)
    first, second = maps
    np.testing.assert_array_equal(first, [[2, 0], [-1, 1]])
    np.testing.assert_array_equal(second, [[-1, 2]])


@pytest.mark.parametrize(
    ("y", "message"),
    [([], "y is empty"), ([[0, 1]], r"y\[0\] has shape \(2,\)"), ([[[0, 4]]], "holds the label 4")],
)
def test_other_values_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        list(indexed_maps(y, [0, 1])[2])
