"""Every architecture learns: at reduced width it gets two pictures with blocky targets right."""

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from hybridseg.networks import NETWORKS

TINY = {"encoder": "mobilenet_v3_small"}
REDUCED = {
    "attention_unet": {"width": 8, "depth": 2},
    "bisenet": TINY | {"width": 8},
    "deeplabv1": TINY | {"head_channels": 32, "rate": 2, "output_stride": 16},
    "deeplabv2": TINY | {"rates": (1, 2), "output_stride": 16},
    "deeplabv3": TINY | {"head_channels": 32, "rates": (1, 2)},
    "deeplabv3plus": TINY | {"head_channels": 32, "rates": (1, 2)},
    "denseunet": {"growth": 8, "layers": 2, "depth": 2, "width": 8, "dropout": 0},
    "enet": {},
    "espnet": {"depths": (1, 2)},
    "espnetv2": {"scale": 0.5, "depths": (1, 1)},
    "fcn16s": TINY | {"head_channels": 32, "dropout": 0},
    "fcn32s": TINY | {"head_channels": 32, "dropout": 0},
    "fcn8s": TINY | {"head_channels": 32, "dropout": 0},
    "fpn": TINY | {"pyramid_channels": 32, "head_channels": 16},
    "liteseg": TINY | {"head_channels": 16},
    "lraspp": TINY,
    "pspnet": TINY | {"output_stride": 16, "head_channels": 32},
    "resunet": {"width": 8},
    "segnet": {"width": 8},
    "unet": {"width": 8, "depth": 2},
    "unet3d": {"width": 4, "depth": 2},
    "vnet": {"width": 4, "convs": (1, 1, 2)},
}


def two_pictures(n_axes):
    """Four blocks of three classes each, seen through noise."""
    side = 8 if n_axes == 3 else 32
    labels = torch.tensor([[[0, 1], [2, 1]], [[2, 0], [1, 0]]])
    labels = labels.repeat_interleave(side, 1).repeat_interleave(side, 2)
    if n_axes == 3:
        labels = labels[:, None].repeat(1, 8, 1, 1)
    images = one_hot(labels, 3).movedim(-1, 1).float()
    return (images + 0.3 * torch.randn(images.shape)).contiguous(), labels


def mean_iou(predicted, labels):
    both = [((predicted == c) & (labels == c)).sum() for c in range(3)]
    either = [((predicted == c) | (labels == c)).sum() for c in range(3)]
    return float(sum(a / b for a, b in zip(both, either, strict=True)) / 3)


def test_no_network_is_forgotten():
    assert set(REDUCED) == set(NETWORKS)


@pytest.mark.parametrize("name", sorted(REDUCED))
def test_two_pictures_are_learned(name):
    images, labels = two_pictures(3 if name in ("unet3d", "vnet") else 2)
    network = NETWORKS[name](in_channels=3, n_classes=3, **REDUCED[name])
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.5  # the running statistics follow within a few steps
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    untouched, reached = set(dict(network.named_parameters())), 0.0
    for step in range(120):
        optimizer.zero_grad()
        cross_entropy(network.train()(images), labels).backward()
        untouched -= {
            key for key, p in network.named_parameters() if p.grad is not None and p.grad.any()
        }
        optimizer.step()
        if step % 5 == 4:
            with torch.inference_mode():
                reached = mean_iou(network.eval()(images).argmax(1), labels)
            if reached > 0.95 and not untouched:
                break
    assert reached > 0.95
    assert not untouched, "no gradient ever reached these"
