"""Devices are found by name, and networks on theirs."""

import pytest
import torch
from torch import nn

from hybridseg.deep.prediction.device import as_device, device_of


def test_names_become_devices():
    for name in ("cpu", "meta"):
        assert as_device(name) == torch.device(name)


@pytest.mark.parametrize("present", [True, False])
def test_auto_is_the_gpu_where_there_is_one(present, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    monkeypatch.setattr(
        torch, "empty", lambda n, device: seen.append(device) or torch.zeros(n, device="cpu")
    )
    as_device("auto")
    assert seen == ["cuda" if present else "cpu"]


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_what_is_not_here_is_refused(name):
    with pytest.raises(ValueError, match=f"device='{name}' cannot be used here .*'auto', 'cpu'"):
        as_device(name)


def test_a_network_is_where_its_parameters_are():
    for name in ("cpu", "meta"):
        network = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 1, device=name))
        assert device_of(network) == torch.device(name)
    assert device_of(nn.ReLU()) == torch.device("cpu")
