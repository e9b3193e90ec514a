"""Examples: their size, and the parts of a single image."""

import numpy as np
import pytest

from hybridseg.learning.examples import Example, MarginModel, Part


def example(given=None):
    truth = np.array([0, 1, -1, 1, 0, 1])
    costs = np.zeros((6, 2), np.float32)
    return Example(costs, truth, np.array([0, 0, 0, 1, 1, 2]), given)


def test_a_part_hides_the_truth_of_other_blocks():
    np.testing.assert_array_equal(Part(0, (1, 2)).truth(example()), [-1, -1, -1, 1, 0, 1])
    np.testing.assert_array_equal(Part(0, None).truth(example()), example().truth)


def test_the_size_counts_what_is_given():
    assert example().nbytes == 6 * 2 * 4 + 6 * 8 + 6 * 8
    assert example(np.zeros(5)).nbytes == example().nbytes + 40


def test_a_model_must_define_all_hooks():
    class Partly(MarginModel):
        def predict(self, point, example):
            return example.costs.argmin(axis=1)

    with pytest.raises(TypeError, match="abstract"):
        Partly()
