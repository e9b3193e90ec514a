"""The network that a training starts from, and how its inputs are standardized."""

import numpy as np
import pytest
import torch
from torch import nn

from hybridseg.deep.training.start import Trained, continued_module, make_module
from hybridseg.networks import UNet, adapt
from tests.deep.subjects import IMAGES, LABELS, SMALL, quick, volumes

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("unet", SMALL),
        ("fcn32s", {"encoder": "resnet18", "head_channels": 8}),
        ("enet", {"width": 8}),
        ("segnet", {"width": 4}),
    ],
)
def test_new_classes_get_a_new_head_that_keeps_the_old_ones(network, options):
    old, new = np.array([2, 5, 9]), np.array([1, 2, 9, 10])
    before = make_module(network, options, 3, 3).eval()
    trained = Trained(before, old, np.zeros(3), np.ones(3))
    after = continued_module(network, options, 3, new, trained).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        found, expected = after(images), before(images)
    assert found.shape[1] == 4
    torch.testing.assert_close(found[:, [1, 2]], expected[:, [0, 2]])


def test_new_classes_read_no_weights_again():
    read = []

    def make(in_channels, n_classes, **options):
        read.append(options)
        return UNet(in_channels, n_classes, **SMALL)

    options = {"weights": "a.pth", "encoder_weights": "b.pth"}
    model = quick(network=make, network_options=options, max_epochs=1).fit(IMAGES, LABELS)
    model.partial_fit(IMAGES, LABELS, classes=[0, 1, 2, 7])
    assert read == [options, *[dict.fromkeys(options)] * 2]


def test_networks_that_standardize_are_given_plain_colors():
    network = adapt(nn.Conv2d(3, 3, 1), mean=(90.0, 100.0, 110.0), std=50.0)
    model = quick(network=network, network_options=None, validation=0.3).fit(IMAGES, LABELS)
    np.testing.assert_array_equal(model.mean_, [0, 0, 0])
    np.testing.assert_array_equal(model.std_, [1, 1, 1])
    more = model.partial_fit(IMAGES, LABELS)
    np.testing.assert_array_equal(more.mean_, [0, 0, 0])


def test_networks_that_expect_other_channels_are_refused():
    network = adapt(nn.Conv2d(3, 2, 1))
    network.input_mean, network.input_std = (1.0, 2.0), (1.0, 2.0)
    with pytest.raises(ValueError, match="network expects .* 2 channels, but the images have 3"):
        quick(network=network, network_options=None).fit(IMAGES, LABELS)


def test_networks_of_images_refuse_volumes_with_advice():
    with pytest.raises(ValueError, match=r"y\[0\] is a volume .* UNet .* pass the planes as"):
        quick().fit(*volumes())
