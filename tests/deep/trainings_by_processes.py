"""Trainings that several processes run together: what each process finds, in a file of its own.

ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 -m tests.deep.trainings_by_processes DIRECTORY
"""

import functools
import sys
from pathlib import Path

import torch
from skorch.callbacks import Callback
from torch import nn

from hybridseg.networks import UNet
from tests.deep.subjects import IMAGES, LABELS, SMALL, LearnedScale, quick, weights


class Plain(nn.Module):
    """A network without batch normalization, with an unused parameter and inactive dropout."""

    def __init__(self, in_channels, n_classes):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(in_channels, 6, 3, padding=1), nn.ReLU())
        self.classify = nn.Sequential(nn.Dropout(0.0), nn.Conv2d(6, n_classes, 1))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, images):
        return self.classify(self.encoder(images))


class Kill(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) > self.epoch:
            raise MemoryError("killed")


def plain(**changes):
    settings = {
        "network": Plain,
        "network_options": None,
        "batch_size": 8,
        "crops_per_image": 6,
        "max_epochs": 3,
        "lr": 0.05,
        "optimizer": functools.partial(torch.optim.SGD, momentum=0.9),
        "validation": (IMAGES[1:], LABELS[1:]),
    }
    return quick(**(settings | changes))


#: Trainings that end as if one process had passed the parts of a batch through the network.
SAME = {
    "plain": {},
    "in parts": {"accumulate": 2, "schedule": "poly"},
    "frozen encoder": {"encoder_lr_factor": 0},
    "a learned loss": {"loss": LearnedScale()},
    "few crops": {"crops_per_image": 2, "class_weight": "balanced", "patience": 1},
    "half precision": {"precision": "bfloat16"},
}


def found(model):
    rows = ("train_loss", "valid_loss", "valid_mean_iou")
    curves = {name: [float(value) for value in model.net_.history[:, name]] for name in rows}
    return {"weights": weights(model), **curves}


def run(directory, rank):
    """All trainings of a process."""
    results = {
        name: found(plain(device="accelerate", **changes).fit(IMAGES, LABELS))
        for name, changes in SAME.items()
    }
    torch.manual_seed(rank)
    several = {
        "own module": {"network": UNet(3, 3, **SMALL)},
        "no seed": {"random_state": None},
        "batch statistics": {"network": "unet", "network_options": SMALL | {"dropout": 0.5}},
    }
    for name, changes in several.items():
        results[name] = found(plain(device="accelerate", **changes).fit(IMAGES, LABELS))
    broken = plain(device="accelerate", checkpoint=directory / "checkpoint")
    try:
        broken.set_params(callbacks=[("kill", Kill(1))]).fit(IMAGES, LABELS)
    except MemoryError as error:
        results["killed"] = str(error)
    try:
        plain(device="accelerate", batch_size=5).fit(IMAGES, LABELS)
    except ValueError as error:
        results["odd batches"] = str(error)
    torch.save(results, directory / f"{rank}.pt")


if __name__ == "__main__":
    from accelerate import PartialState

    from tests.deep import trainings_by_processes  # whose classes are named as in the tests

    torch.set_num_threads(1)
    trainings_by_processes.run(Path(sys.argv[1]), PartialState(cpu=True).process_index)
