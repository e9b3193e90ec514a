"""Logits from an encoder's features have the size of the images."""

import pytest
import torch
from torch import nn

from hybridseg.networks import Encoder
from hybridseg.networks.encoded import EncodedNetwork


class Means(EncodedNetwork):
    """The logits are the means of windows of four by four pixels."""

    def __init__(self, align_corners=False):
        super().__init__()
        self._align_corners = align_corners
        self.encoder = Encoder([nn.AvgPool2d(2), nn.AvgPool2d(2)], (1, 1), (2, 4))
        self.seen = []

    def _logits(self, features):
        self.seen.append([tuple(f.shape[-2:]) for f in features])
        return features[-1]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (4, 8), (5, 9), (16, 3)])
def test_logits_have_the_size_of_any_input(size, training):
    network = Means().train(training)
    assert network(torch.rand(2, 1, *size)).shape == (2, 1, *size)
    (half, quarter), height, width = network.seen[0], -(-size[0] // 4), -(-size[1] // 4)
    width = max(width, 2) if training else width  # batch normalization needs two values
    assert quarter == (height, width)
    assert half == (2 * height, 2 * width)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_constant_stays_and_a_ramp_rises(align_corners):
    network = Means(align_corners).eval()
    torch.testing.assert_close(
        network(torch.full((1, 1, 10, 11), 3.0)), torch.full((1, 1, 10, 11), 3.0)
    )
    ramp = network(torch.arange(16.0).expand(1, 1, 8, 16))
    assert (ramp.diff(dim=-1) >= 0).all()
    assert ramp.diff(dim=-2).abs().max() < 1e-5
    turned = network(torch.arange(16.0).expand(1, 1, 8, 16).mT)
    torch.testing.assert_close(turned, ramp.mT)


def test_corners_are_aligned_where_a_network_says_so():
    logits = torch.rand(1, 1, 3, 5)
    image = logits.repeat_interleave(4, -1).repeat_interleave(4, -2)
    found = Means(True).eval()(image)
    torch.testing.assert_close(found[..., ::11, ::19], logits[..., ::2, ::4])


def test_the_hook_is_asked_for():
    network = EncodedNetwork()
    network.encoder = Means().encoder
    with pytest.raises(TypeError, match=r"EncodedNetwork lacks the hook _logits\(features\)"):
        network(torch.rand(1, 1, 4, 4))
