"""Corrections: the same in windows of any size, only in the band, weakened by the strength."""

import numpy as np
import pytest
import torch

from hybridseg.deep.boundary.band import Surroundings
from hybridseg.deep.boundary.corrections import corrected, corrections
from hybridseg.deep.boundary.network import BoundaryNetwork
from tests.deep.boundary.shifted import shifted

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def subjects(shape=(40, 48)):
    scene, _ = shifted(3, n_labels=3, shape=shape)
    torch.manual_seed(0)
    options = {"ndim": len(shape), "hidden": 4, "depth": 3, "reach": 4}
    network = BoundaryNetwork(3, 3, **options)
    torch.nn.init.normal_(network.last.weight)
    return Surroundings.of(scene, 3.0), network


@pytest.mark.parametrize("shape", [(40, 48), (12, 14, 10)])
def test_windows_of_any_size_give_the_same(shape):
    around, network = subjects(shape)
    expected = corrections(network, around, side=1000)
    assert expected.shape == (np.count_nonzero(around.band), 3)
    assert expected.any()
    for side in (5, 16, None):
        np.testing.assert_allclose(corrections(network, around, side=side), expected, atol=1e-4)


def test_only_candidates_are_corrected():
    around, network = subjects()
    found = corrections(network, around)
    assert not found[~around.candidates[around.band]].any()
    assert found[around.candidates[around.band]].all()


def test_outside_of_the_band_nothing_changes():
    around, network = subjects()
    found = corrected(around, corrections(network, around), 1.0)
    np.testing.assert_array_equal(found[~around.band], around.proba[~around.band])
    assert not np.allclose(found[around.band], around.proba[around.band], atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)


def test_strengths_lead_from_nothing_to_the_whole_correction():
    around, network = subjects()
    added = corrections(network, around)
    np.testing.assert_array_equal(corrected(around, added, 0.0), around.proba)
    scores = np.log(around.proba[around.band]) + 0.3 * added
    expected = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(corrected(around, added, 0.3)[around.band], expected, atol=1e-5)
