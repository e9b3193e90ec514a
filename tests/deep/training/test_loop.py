"""The training loop: schedules, parts of a batch, groups of parameters."""

import functools

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn

from hybridseg.deep.training.loop import Schedule, encoder_of
from hybridseg.networks import adapt
from tests.deep.subjects import IMAGES, LABELS, quick, same, weights
from tests.networks.foreign import tiny_segformer
from tests.subjects import deep, halves

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize(("epochs", "n_steps"), [(1, 1), (1, 2), (1, 3), (5, 8), (10, 46)])
def test_one_cycle_is_torchs(epochs, n_steps):
    total = max(3, epochs * n_steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total, pct_start=max(0.1, 1.5 / total), cycle_momentum=False
    )
    ours = Schedule("one_cycle", epochs * n_steps)
    for step in range(total - 1):
        assert ours(step) == pytest.approx(peer.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        peer.step()


def test_poly_and_constant():
    poly = Schedule("poly", 10)
    assert [poly(0), poly(5), poly(10), poly(11)] == pytest.approx([1, 0.5**0.9, 0, 0])
    model = quick(schedule="constant").fit(IMAGES, LABELS)
    rates = [rate for epoch in model.net_.history[:, "batches", :, "event_lr"] for rate in epoch]
    assert set(rates) == {model.lr}


def test_a_batch_in_parts_makes_the_same_step():
    def linear(in_channels, n_classes):
        return nn.Conv2d(in_channels, n_classes, 1)

    changes = {"network": linear, "network_options": None, "batch_size": 6, "crops_per_image": 4}
    optimizer = functools.partial(torch.optim.SGD, momentum=0.9)
    made = [
        weights(quick(**changes, optimizer=optimizer, accumulate=parts).fit(IMAGES, LABELS))
        for parts in (1, 3)
    ]
    for name, value in made[0].items():
        torch.testing.assert_close(made[1][name], value, rtol=1e-4, atol=1e-6)


class LargestGradient(Callback):
    def __init__(self):
        self.norms = []

    def on_grad_computed(self, net, named_parameters, **kwargs):
        total = sum(p.grad.square().sum() for _, p in named_parameters if p.grad is not None)
        self.norms.append(float(total.sqrt()))


def test_gradients_are_clipped_by_skorchs_callback():
    callbacks = [("clip", GradientNormClipping(0.01)), ("seen", LargestGradient())]
    model = quick(callbacks=callbacks, accumulate=2).fit(IMAGES, LABELS)
    norms = dict(model.net_.callbacks_)["seen"].norms
    assert len(norms) == 6
    assert max(norms) <= 0.01 * 1.001


@pytest.mark.parametrize(("epochs", "batch"), [(1, 64), (2, 64), (3, 64), (10, 64), (5, 128)])
def test_few_steps(epochs, batch):
    """A schedule of few steps has a warm-up too, and does not divide by zero."""
    images, labels = halves(((24, 32),))
    model = deep(max_epochs=epochs, batch_size=batch, crop_size=16).fit(images, labels)
    assert len(model.net_.history) == epochs
    assert np.isfinite(model.transform(images)[0].unary).all()


def test_the_learning_rate_rises_to_lr_and_falls():
    model = quick(max_epochs=5, crops_per_image=8, lr=0.02).fit(IMAGES, LABELS)
    rates = [rate for epoch in model.net_.history[:, "batches", :, "event_lr"] for rate in epoch]
    assert len(rates) == 5 * 3 * 8 // 2
    assert max(rates) == pytest.approx(0.02, rel=0.02)
    assert rates[0] < 0.001
    assert rates[-1] < 0.001


def test_a_frozen_encoder_stays_as_it_is():
    model = quick().fit(IMAGES, LABELS)
    before = weights(model)
    model.set_params(encoder_lr_factor=0).partial_fit(IMAGES, LABELS)
    after = weights(model)
    assert same({k: v for k, v in after.items() if k.startswith("down.")}, before)
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert all(p.requires_grad for p in model.net_.module_.parameters())


def test_the_encoders_own_rate():
    model = quick(encoder_lr_factor=0.25, schedule="constant").fit(IMAGES, LABELS)
    groups = model.net_.optimizer_.param_groups
    assert [group["lr"] for group in groups] == [model.lr, model.lr / 4]
    encoder = sum(p.numel() for p in encoder_of(model.net_.module_).parameters())
    assert sum(p.numel() for p in groups[1]["params"]) == encoder
    everything = sum(p.numel() for p in model.net_.module_.parameters())
    assert sum(p.numel() for group in groups for p in group["params"]) == everything


def test_adapted_networks_have_encoders():
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    theirs = segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )
    assert encoder_of(adapt(theirs)) is theirs.backbone
    theirs = tiny_segformer(3)
    assert encoder_of(adapt(theirs)) is encoder_of(theirs) is theirs.segformer
    with pytest.raises(ValueError, match="Conv2d has no encoder"):
        encoder_of(adapt(torch.nn.Conv2d(3, 3, 1)))
