"""Small networks, trained for a moment, and what their tests share."""

import numpy as np
import torch
from torch import nn

from hybridseg import DeepSegmenter
from tests.subjects import halves

IMAGES, LABELS = halves(((24, 32), (30, 22), (20, 26)))
SMALL = {"width": 4, "depth": 1}


def quick(**changes):
    settings = {
        "network_options": SMALL,
        "max_epochs": 2,
        "crops_per_image": 2,
        "batch_size": 2,
        "crop_size": 16,
        "random_state": 0,
    }
    return DeepSegmenter(**(settings | changes))


def fitted(network_options=None, **changes):
    settings = {"max_epochs": 6, "crops_per_image": 4, "lr": 1e-2} | changes
    return quick(network_options=network_options or SMALL, **settings).fit(IMAGES, LABELS)


def same_as(model, **changes):
    """A trained segmenter with other parameters."""
    twin = DeepSegmenter(**model.get_params())
    twin.__dict__.update(vars(model))
    return twin.set_params(**changes)


class LearnedScale(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, target):
        loss = nn.functional.cross_entropy(logits, target, ignore_index=-1)
        return loss * self.scale.exp() - self.scale


def weights(model):
    return {name: value.clone() for name, value in model.net_.module_.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def state(segmenter):
    """The weights of a DeepSegmenter's or a PretrainedSegmenter's network."""
    network = segmenter.net_.module_ if hasattr(segmenter, "net_") else segmenter.network
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before, after):
    """The names of the weights that differ."""
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def two_norms(convolution=nn.Conv2d, norm=nn.BatchNorm2d):
    torch.manual_seed(0)
    network = nn.Sequential(
        *(convolution(2, 3, 3, padding=1), norm(3), nn.ReLU()),
        *(convolution(3, 4, 3, padding=1, bias=False), norm(4), nn.ReLU()),
        convolution(4, 3, 1),
    )
    for layer in (network[1], network[4]):
        for value in (layer.weight, layer.bias, layer.running_mean):
            nn.init.normal_(value)
        nn.init.uniform_(layer.running_var, 0.5, 2)
    return network


def volumes():
    images, labels = halves(((10, 12, 14), (8, 10, 12)), channels=1)
    return [image[..., 0] for image in images], labels


def ragged(rng, shapes):
    return [rng.integers(0, 256, (*shape, 2), dtype=np.uint8) for shape in shapes]


def darkened(image):
    """A darkened image."""
    return (255 * (image / 255) ** 1.5 * 0.3).astype(np.uint8)


def fogged(image):
    return (0.35 * image + 0.65 * 190).astype(np.uint8)


def group_norms():
    """A network with group normalization."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 3, 1)
    )


class Shifted:
    """An augmentation with a state."""

    def __init__(self, by):
        self.by = by

    def __call__(self, colors, labels, rng):
        return colors + self.by, labels

    def shift(self, colors, labels, rng):
        return self(colors, labels, rng)


def shifting(by, sign=1):
    return lambda colors, labels, rng: (colors + sign * by, labels)
