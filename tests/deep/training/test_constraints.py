"""Every parameter of a DeepSegmenter has a constraint that its default satisfies."""

import inspect

import pytest

from hybridseg import DeepSegmenter
from hybridseg.deep.training.constraints import CONSTRAINTS


def test_all_parameters_and_no_others_have_constraints():
    assert set(CONSTRAINTS) == set(inspect.signature(DeepSegmenter).parameters)


def test_defaults_satisfy_them():
    DeepSegmenter()._validate_params()


@pytest.mark.parametrize("changes", [{"crf": 1.5}, {"crf": "yes"}, {"crf_start": 1.0}])
def test_wrong_values_are_refused(changes):
    with pytest.raises(ValueError, match=f"'{next(iter(changes))}' parameter"):
        DeepSegmenter(**changes)._validate_params()
