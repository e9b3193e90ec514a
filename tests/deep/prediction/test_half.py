"""Half precision, and what torch gets wrong in it."""

import numpy as np
import pytest
import torch
from torch import nn

from hybridseg.deep.prediction.half import training_layout, wide_where_small
from tests.deep.subjects import IMAGES, LABELS, quick

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_bfloat16_learns_as_well():
    model = quick(precision="bfloat16", max_epochs=8, crops_per_image=8, lr=1e-2)
    assert model.fit(IMAGES, LABELS).score(IMAGES, LABELS) > 0.9
    halved = model.predict_proba(IMAGES)[0]
    exact = model.set_params(precision="float32").predict_proba(IMAGES)[0]
    assert 0 < np.abs(halved - exact).max() < 0.05
    assert next(model.net_.module_.parameters()).dtype == torch.float32


def dilated(in_channels, n_classes):
    """A dilated convolution for which torch computes wrong gradients in bfloat16, channels last."""
    middle = nn.Conv2d(24, 24, 3, padding=2, dilation=2)
    apart = nn.Conv2d(24, 24, 3, padding=3, dilation=3, groups=24)
    first, last = nn.Conv2d(in_channels, 24, 1), nn.Conv2d(24, n_classes, 1)
    return nn.Sequential(first, middle, nn.ReLU(), apart, last)


def test_dilated_convolutions_in_bfloat16_keep_channels_first_on_a_cpu():
    plain, network = nn.Conv2d(3, 24, 3), dilated(3, 2)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert training_layout(network, 2, "bfloat16", cpu) == torch.contiguous_format
    for part, *others in (
        (plain, "bfloat16", cpu),
        (network, "float32", cpu),
        (network, "bfloat16", gpu),
    ):
        assert training_layout(part, 2, *others) == torch.channels_last
    changes = {"network": dilated, "network_options": None, "precision": "bfloat16"}
    module = quick(**changes, max_epochs=1).fit(IMAGES, LABELS).net_.module_
    assert all(value.is_contiguous() for value in module.parameters())


def test_small_volumes_are_convolved_in_float32_where_bfloat16_gives_garbage():
    convolution = nn.Conv3d(16, 16, 5, padding=2)
    cpu = torch.device("cpu")
    with wide_where_small(convolution, "bfloat16", cpu), torch.autocast("cpu"):
        assert convolution(torch.zeros(1, 16, 4, 6, 6)).dtype == torch.float32
        assert convolution(torch.zeros(1, 16, 5, 6, 6)).dtype == torch.bfloat16
    with torch.autocast("cpu"):
        assert convolution(torch.zeros(1, 16, 4, 6, 6)).dtype == torch.bfloat16
    with wide_where_small(convolution, "float32", cpu):
        assert "forward" not in vars(convolution)


def test_a_v_net_learns_in_bfloat16():
    volumes = [np.random.default_rng(i).random((16, 20, 18, 1)) for i in range(3)]
    labels = [(volume[..., 0] > 0.5).astype(int) for volume in volumes]
    options = {"width": 4, "convs": (1, 1, 1), "batch_norm": True}
    model = quick(network="vnet", network_options=options, precision="bfloat16", max_epochs=3)
    losses = model.fit(volumes, labels).net_.history[:, "train_loss"]
    assert losses[-1] < losses[0]
    assert "forward" not in vars(model.net_.module_.head)
