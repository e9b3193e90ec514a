"""Models that tests save, and a comparison of two models."""

import numpy as np
import pytest

from hybridseg import save
from tests.persistence.archives_made import (
    path_for,
)
from tests.subjects import deep, halves

X, Y = halves()


def assert_same(one, other, images=X):
    for a, b in zip(one.predict(images), other.predict(images), strict=True):
        np.testing.assert_array_equal(a, b)
    if hasattr(one, "predict_proba"):
        for a, b in zip(one.predict_proba(images), other.predict_proba(images), strict=True):
            np.testing.assert_array_equal(a, b)


def saved_without(model, directory, what="a file cannot hold the network"):
    """Save a model that a file cannot hold completely, which warns."""
    with pytest.warns(UserWarning, match=what):
        return save(model, path_for(directory))


def own_deep(network, options=None):
    return deep(max_epochs=1).set_params(network=network, network_options=options)


def own_network(in_channels=3, n_classes=3):
    from torch import nn

    return nn.Conv2d(in_channels, n_classes, 3, padding=1)
