"""Small networks, trained for a moment, and what their tests share."""

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


class LearntScale(nn.Module):
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
