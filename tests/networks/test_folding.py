import copy

import pytest
import torch
from torch import nn

from hybridseg.networks import NETWORKS, fold_batch_norm
from tests.networks.test_architectures import NARROW, VOLUMES


def norms(network):
    kinds = (nn.BatchNorm2d, nn.BatchNorm3d)
    return [module for module in network.modules() if isinstance(module, kinds)]


def trained(network):
    """The network with random statistics, scales and shifts, as after a training."""
    for module in norms(network):
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias, std=0.3)
        nn.init.normal_(module.running_mean, std=0.3)
        nn.init.uniform_(module.running_var, 0.5, 2.0)
    for name, parameter in network.named_parameters():
        if not parameter.any():  # the scores of FCN begin at zero
            nn.init.normal_(network.get_parameter(name), std=0.1)
    return network


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_predicts_the_same(name):
    network = trained(NETWORKS[name](in_channels=2, n_classes=3, **NARROW[name])).train()
    state = copy.deepcopy(network.state_dict())
    small, images = (
        torch.rand(2, 2, *((9, *size) if name in VOLUMES else size))
        for size in ((33, 40), (37, 50))
    )
    folded = fold_batch_norm(network, small)
    assert network.training
    assert not any(module.training for module in folded.modules())
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    network.eval()
    with torch.inference_mode():
        expected = network(images)
        torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-4)


def test_all_normalizations_after_convolutions_are_gone():
    for name in ("bisenet", "deeplabv3plus", "lraspp", "segnet", "unet", "unet3d"):
        network = NETWORKS[name](in_channels=1, n_classes=2, **NARROW[name])
        images = torch.rand(1, 1, 8, 8, 8) if name in VOLUMES else torch.rand(1, 1, 32, 32)
        assert not norms(fold_batch_norm(network, images)), name


class Odd(nn.Module):
    """A convolution with a normalization that must not be folded."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        transposed = how == "grouped and transposed"
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.conv = kind(4, 4, 3, padding=1, groups=2 if transposed else 1)
        self.norm = nn.BatchNorm2d(4, track_running_stats=how != "of the batch")

    def forward(self, images):
        features = self.conv(images)
        if self.how == "changed in place":
            features = features.relu_()
        if self.how == "normalized twice":
            return self.norm(self.norm(features))
        if self.how == "convolved twice":
            return self.norm(self.conv(features))
        if self.how == "used besides":
            return self.norm(features) + features
        if self.how == "listed besides":
            return torch.cat([self.norm(features), features], dim=1)
        if self.how == "returned besides":
            return {"features": features, "normalized": self.norm(features)}
        return self.norm(features)


@pytest.mark.parametrize(
    "how",
    [
        *("changed in place", "normalized twice", "convolved twice", "used besides"),
        *("listed besides", "returned besides", "of the batch", "grouped and transposed"),
    ],
)
def test_normalizations_that_cannot_be_folded_stay(how):
    network = trained_if_tracked(Odd(how)).eval()
    images = torch.rand(2, 4, 6, 7)
    folded = fold_batch_norm(network, images)
    assert len(norms(folded)) == 1
    torch.testing.assert_close(folded(images), network(images))


def trained_if_tracked(network):
    return trained(network) if network.norm.track_running_stats else network


def test_the_same_pair_alone_is_folded():
    network = trained(Odd("plain")).eval()
    images = torch.rand(2, 4, 6, 7)
    folded = fold_batch_norm(network, images)
    assert not norms(folded)
    torch.testing.assert_close(folded(images), network(images))
