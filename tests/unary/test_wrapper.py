"""A wrapper gives the results of its fitted segmenter."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

from hybridseg.unary.wrapper import WrapperMixin
from tests.segmenters_made import Dearest, NearestGray
from tests.subjects import halves

X, Y = halves()


class Wrapper(WrapperMixin, BaseEstimator):
    """A wrapper that fits a copy of its segmenter."""

    def __init__(self, segmenter):
        self.segmenter = segmenter

    def fit(self, X, y):
        self.segmenter_ = clone(self.segmenter).fit(X, y)
        return self


def test_it_answers_as_the_fitted_segmenter_does():
    alone, wrapped = NearestGray().fit(X, Y), Wrapper(NearestGray()).fit(X, Y)
    for method in ("predict", "predict_proba"):
        for a, b in zip(getattr(alone, method)(X), getattr(wrapped, method)(X), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(alone.transform(X), wrapped.transform(X), strict=True):
        np.testing.assert_array_equal(a.unary, b.unary)
    assert wrapped.score(X, Y) == alone.score(X, Y)


def test_it_has_probabilities_where_its_segmenter_has_them():
    """Once the wrapper is fitted, its fitted segmenter decides."""
    assert hasattr(Wrapper(NearestGray()), "predict_proba")
    hard = Wrapper(Dearest(NearestGray()))
    assert not hasattr(hard, "predict_proba")
    assert not hasattr(hard.fit(X, Y).set_params(segmenter=NearestGray()), "predict_proba")


def test_it_must_be_fitted():
    for method in ("transform", "predict", "predict_proba"):
        with pytest.raises(NotFittedError, match="Wrapper instance is not fitted"):
            getattr(Wrapper(NearestGray()), method)(X)
