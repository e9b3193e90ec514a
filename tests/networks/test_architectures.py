"""Every network has its published size, takes images of any size, and learns."""

import hashlib

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from hybridseg.networks import NETWORKS, VNet

SMALL = "mobilenet_v3_small"
#: Options that make each network small enough for a test.
NARROW = {
    "attention_unet": {"width": 4, "depth": 2},
    "bisenet": {"encoder": SMALL, "width": 4},
    "deeplabv1": {"encoder": SMALL, "head_channels": 8, "rate": 2},
    "deeplabv2": {"encoder": SMALL, "rates": (1, 2)},
    "deeplabv3": {"encoder": SMALL, "head_channels": 8},
    "deeplabv3plus": {"encoder": SMALL, "head_channels": 8},
    "denseunet": {"growth": 4, "layers": 1, "depth": 2, "width": 4},
    "enet": {"width": 8},
    "espnet": {"depths": (1, 1)},
    "espnetv2": {"scale": 0.5, "depths": (1, 1)},
    "fcn16s": {"encoder": SMALL, "head_channels": 8},
    "fcn32s": {"encoder": SMALL, "head_channels": 8},
    "fcn8s": {"encoder": SMALL, "head_channels": 8},
    "fpn": {"encoder": SMALL, "pyramid_channels": 8, "head_channels": 8},
    "liteseg": {"encoder": SMALL, "head_channels": 8},
    "lraspp": {"encoder": SMALL},
    "pspnet": {"encoder": SMALL, "head_channels": 8},
    "resunet": {"width": 4},
    "segnet": {"width": 4},
    "unet": {"width": 4, "depth": 2},
    "unet3d": {"width": 2, "depth": 2},
    "vnet": {"width": 2, "convs": (1, 1, 2)},
}
VOLUMES = {"unet3d", "vnet"}

#: Numbers of parameters of the published networks, and the options that reproduce them.
PUBLISHED = [
    ("espnet", 3, 12, {}, 354_517),
    ("espnet", 3, 20, {"image_in_fusion": False}, 364_569),
    # the authors' files also hold 112, 224 and 480 weights of unused activations
    ("espnetv2", 3, 21, {"scale": 0.5}, 80_353 - 112),
    ("espnetv2", 3, 21, {}, 234_021 - 224),
    ("espnetv2", 3, 20, {}, 234_010 - 224),
    ("espnetv2", 3, 21, {"scale": 2.0}, 789_253 - 480),
    ("fcn8s", 3, 21, {"learn_upsampling": False}, 134_362_751),
    ("segnet", 3, 11, {}, 29_449_355),
    ("deeplabv1", 3, 21, {}, 20_505_429),
    ("deeplabv2", 3, 21, {"encoder": "vgg16"}, 37_877_652),
    ("deeplabv2", 3, 21, {}, 44_048_532),
    ("deeplabv3", 3, 21, {"output_stride": 8}, 39_638_869),
    ("deeplabv3plus", 3, 21, {}, 26_682_725),
    ("deeplabv3plus", 3, 21, {"encoder": "mobilenet_v2"}, 4_383_653),
    # the network of segmentation_models_pytorch
    ("fpn", 3, 21, {"smooth": False}, 26_118_613),
    ("lraspp", 3, 21, {}, 3_221_538),
    ("bisenet", 3, 19, {}, 12_894_163),
    ("bisenet", 3, 19, {"auxiliary": True}, 13_494_777),
    # the authors' 4 382 707 include MobileNetV2's classifier of 1000 classes
    ("liteseg", 3, 19, {}, 4_382_707 - 1281 * 1000),
    ("denseunet", 3, 11, {"growth": 12, "layers": 4}, 1_376_795),
    ("denseunet", 3, 11, {}, 3_463_243),
    ("denseunet", 3, 11, {"layers": (4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4)}, 9_322_091),
    ("attention_unet", 3, 1, {"gates": "equal"}, 34_878_573),
    # the paper does not count batch normalization (2336 channels)
    ("unet3d", 3, 3, {}, 19_069_955 + 2 * 2336),
    # summed over the layers of the authors' prototxt
    ("vnet", 1, 2, {}, 61_982_682),
]

#: Checksums of the names and shapes in each network's state for 3 channels and 4 classes; files of
#: weights that users have rely on these names.
STATES = {
    "attention_unet": "f1379fd81c7d",
    "bisenet": "ffab38aeddc3",
    "deeplabv1": "0a81ee5877af",
    "deeplabv2": "a5d3e6bd9c67",
    "deeplabv3": "34c4d88c4642",
    "deeplabv3plus": "ff29e7edfc54",
    "denseunet": "64083ce36ddd",
    "enet": "18ed4b1d7879",
    "espnet": "7246c4751404",
    "espnetv2": "c478ce6f9c09",
    "fcn16s": "281fa7f05620",
    "fcn32s": "1e9089b2deab",
    "fcn8s": "66fa7f67b4a6",
    "fpn": "155c5c1eb720",
    "liteseg": "4fde3dbf1fb6",
    "lraspp": "74d6547afcde",
    "pspnet": "7e1de962b601",
    "resunet": "641da7ffc717",
    "segnet": "2ea11c161ab2",
    "unet": "23836e50986e",
    "unet3d": "12160553b2ec",
    "vnet": "322a35e0d573",
}


def test_every_network_is_tested():
    assert set(NARROW) == set(STATES) == set(REDUCED) == set(NETWORKS)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_states_keep_their_names_and_shapes(name):
    with torch.device("meta"):
        network = NETWORKS[name](in_channels=3, n_classes=4, **NARROW[name])
    words = (f"{key} {tuple(value.shape)}" for key, value in network.state_dict().items())
    assert hashlib.sha256("\n".join(words).encode()).hexdigest()[:12] == STATES[name]


@pytest.mark.parametrize(("name", "channels", "classes", "options", "expected"), PUBLISHED)
def test_parameters_of_the_published_network(name, channels, classes, options, expected):
    with torch.device("meta"):
        network = NETWORKS[name](in_channels=channels, n_classes=classes, **options)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == expected


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (33, 64)])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_logits_have_the_size_of_any_input(name, size, training):
    network = NETWORKS[name](in_channels=2, n_classes=3, **NARROW[name]).train(training)
    size = (3, *size) if name in VOLUMES else size
    with torch.no_grad():
        logits = network(torch.rand(1, 2, *size))
    assert logits.shape == (1, 3, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("channels", [1, 7])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_any_number_of_channels(name, channels):
    network = NETWORKS[name](in_channels=channels, n_classes=4, **NARROW[name]).eval()
    size = (4, 9, 8) if name in VOLUMES else (9, 8)
    with torch.no_grad():
        assert network(torch.rand(2, channels, *size)).shape == (2, 4, *size)


@pytest.mark.parametrize("name", sorted(VOLUMES))
def test_volumes_are_asked_for(name):
    network = NETWORKS[name](in_channels=1, n_classes=2, **NARROW[name])
    with pytest.raises(ValueError, match=r"expects volumes \(B, C, D, H, W\)"):
        network(torch.zeros(1, 1, 8, 8))


def test_vnet_needs_two_stages():
    with pytest.raises(ValueError, match="one number for each of two or more stages"):
        VNet(convs=(2,))


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


def two_images(n_axes):
    """Two noisy images, each with four blocks of three classes, and their labels."""
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


@pytest.mark.parametrize("name", sorted(REDUCED))
def test_two_images_are_learned(name):
    images, labels = two_images(3 if name in ("unet3d", "vnet") else 2)
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
