"""Networks in evaluation mode, while the mode of the user's network does not change."""

import pytest
import torch
from torch import nn

from hybridseg.deep.prediction.evaluation import evaluating, in_evaluation


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))


def test_a_twin_in_evaluation_mode_shares_its_parameters():
    module = network()
    twin = in_evaluation(module)
    assert module.training
    assert not any(part.training for part in twin.modules())
    shared = zip(module.state_dict().values(), twin.state_dict().values(), strict=True)
    assert all(mine.data_ptr() == its.data_ptr() for mine, its in shared)
    assert in_evaluation(twin) is twin


def test_a_network_that_cannot_be_copied_is_named():
    module = network()
    module.weights = (value for value in range(3))  # generators cannot be copied
    with pytest.raises(TypeError, match=r"Sequential in training mode, .* call network.eval\(\)"):
        in_evaluation(module)


def test_modes_come_back():
    module = network()
    module[1].eval()
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == [True, True, False, True]
    assert torch.isfinite(module(torch.zeros(1, 3, 2, 2))).all()
