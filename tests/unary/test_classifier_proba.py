"""Probabilities equal scikit-learn's bit by bit, with its checks and any number of threads."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from hybridseg.unary import classifier_proba as module
from hybridseg.unary.classifier_proba import classifier_proba

ROWS = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
TARGETS = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0.3)


class Voter(RandomForestClassifier):
    """A user's subclass of a forest."""

    def predict_proba(self, X):
        return np.full((len(X), 3), 1 / 3)


@pytest.mark.parametrize(
    "classifier",
    [
        RandomForestClassifier(7, random_state=0),
        ExtraTreesClassifier(7, random_state=0),
        LogisticRegression(),
        Voter(3),
    ],
)
def test_they_are_those_of_the_classifier(classifier):
    fitted = classifier.fit(ROWS, TARGETS)
    np.testing.assert_array_equal(classifier_proba(fitted, ROWS), fitted.predict_proba(ROWS))


def test_threads_share_the_rows_and_change_no_bit(monkeypatch):
    forest = RandomForestClassifier(9, random_state=0).fit(ROWS, TARGETS)
    alone = classifier_proba(forest, ROWS, 1)
    monkeypatch.setattr(module, "_MIN_ROWS_PER_THREAD", 50)
    for n_jobs in (2, 5, 14):
        np.testing.assert_array_equal(classifier_proba(forest, ROWS, n_jobs), alone)
    forest.n_jobs = 3
    np.testing.assert_array_equal(classifier_proba(forest, ROWS), alone)


def test_bad_rows_are_refused_by_the_classifier():
    forest = RandomForestClassifier(3, random_state=0).fit(ROWS, TARGETS)
    with pytest.raises(ValueError, match="X has 4 features"):
        classifier_proba(forest, ROWS[:, :4])
    double = ROWS[:9].astype(np.float64)
    np.testing.assert_array_equal(classifier_proba(forest, double), forest.predict_proba(double))
    with pytest.raises(ValueError, match="infinity"):
        classifier_proba(forest, np.full((2, 5), np.inf, np.float32))
    missing = np.where(ROWS[:9] > 1, np.nan, ROWS[:9]).astype(np.float32)
    np.testing.assert_array_equal(classifier_proba(forest, missing), forest.predict_proba(missing))
