"""Folds of images, of groups and of the blocks of one image."""

import numpy as np
import pytest
from sklearn.model_selection import ShuffleSplit

from hybridseg.learning.folds import folds_of


def test_images_are_judged_once_and_never_learned_from_at_the_same_time():
    judged = []
    for train, test in folds_of(3, 7, None, 0):
        assert not set(train) & set(test)
        assert {position for position, _ in train + test} == set(range(7))
        judged += [position for position, blocks in test if blocks is None]
    assert sorted(judged) == list(range(7))


def test_there_are_no_more_folds_than_images():
    assert len(list(folds_of(5, 2, None, 0))) == 2
    assert list(folds_of(None, 4, None, 0)) == []


def test_groups_stay_together():
    groups = np.array([0, 0, 1, 1, 2])
    for train, test in folds_of(3, 5, groups, 0):
        apart = {groups[position] for position, _ in test}
        assert not apart & {groups[position] for position, _ in train}
    with pytest.raises(ValueError, match="groups has 1 group for 3 images"):
        list(folds_of(3, 3, [1, 1, 1], 0))


def test_one_image_is_divided_into_blocks():
    found = list(folds_of(3, 1, None, 0))
    assert [test for _, test in found] == [[(0, (0,))], [(0, (1,))], [(0, (2,))]]
    for ((_, shown),), ((_, held),) in found:
        assert set(shown) | set(held) == {0, 1, 2}
        assert not set(shown) & set(held)


def test_splitters_and_seeds():
    splitter = ShuffleSplit(2, test_size=0.5, random_state=0)
    assert [len(test) for _, test in folds_of(splitter, 6, None, 0)] == [3, 3]
    first, second, other = (list(folds_of(3, 9, None, seed)) for seed in (0, 0, 1))
    assert first == second
    assert first != other
