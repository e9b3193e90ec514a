"""A copy of a segmenter answers as it does, and may be changed without it."""

import numpy as np
import pytest
import torch
from torch import nn

from hybridseg import PretrainedSegmenter, Scene
from hybridseg.deep.adaptation.adapted import class_logits, copied, network_of, window_of
from tests.deep.subjects import changed, quick, state
from tests.subjects import halves

IMAGES, LABELS = halves()


@pytest.fixture(scope="module")
def segmenters(one_torch_thread):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)).eval()
    return {
        "trained": quick(max_epochs=1).fit(IMAGES, LABELS),
        "pretrained": PretrainedSegmenter(network, [2, -1, 0, 5]),
    }


@pytest.fixture(params=["trained", "pretrained"])
def segmenter(request, segmenters):
    return segmenters[request.param]


def test_a_copy_answers_alike_and_has_a_network_of_its_own(segmenter):
    before, expected = state(segmenter), segmenter.predict_proba(IMAGES)
    copy = copied(segmenter)
    assert type(copy) is type(segmenter)
    assert repr(copy.get_params()) == repr(segmenter.get_params())
    for a, b in zip(copy.predict_proba(IMAGES), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert network_of(copy) is not network_of(segmenter)
    with torch.no_grad():
        for parameter in network_of(copy).parameters():
            parameter.add_(1)
    assert changed(before, state(copy))
    assert not changed(before, state(segmenter))


def test_the_network_is_the_one_that_predicts(segmenter):
    copy = copied(segmenter)
    for parameter in network_of(copy).parameters():
        nn.init.zeros_(parameter)
    proba = copy.predict_proba(IMAGES[:1])[0]
    np.testing.assert_allclose(proba, 1 / proba.shape[-1], atol=1e-6)


def test_logits_are_those_of_the_prediction_and_have_gradients(segmenter):
    image = IMAGES[0]
    network_of(segmenter).eval()
    logits = class_logits(segmenter, Scene(image).colors)
    assert tuple(logits.shape) == (len(segmenter.classes_), *image.shape[:2])
    found = logits.softmax(0).detach().movedim(0, -1).numpy()
    np.testing.assert_allclose(found, segmenter.predict_proba([image])[0], atol=1e-5)
    logits.square().sum().backward()
    gradients = [p.grad for p in network_of(segmenter).parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    network_of(segmenter).zero_grad()


def test_a_calibration_error_is_of_other_images(segmenters):
    copy = copied(segmenters["trained"])
    copy.calibration_error_ = 0.1
    assert not hasattr(copied(copy), "calibration_error_")
    assert copy.calibration_error_ == 0.1


def test_windows_are_crops_or_bounded(segmenters):
    trained, pretrained = segmenters["trained"], segmenters["pretrained"]
    assert window_of(trained) == trained.crop_size == 16
    assert window_of(pretrained) == 512
    volumes = PretrainedSegmenter(nn.Conv3d(1, 2, 1), [0, 1], n_channels=1, spatial_ndim=3)
    assert window_of(volumes) == 96
