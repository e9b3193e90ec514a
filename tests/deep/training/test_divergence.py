"""A training that diverges stops at once, keeps what was good, and says so."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import nn

from hybridseg.deep.training.divergence import are_finite
from tests.deep.subjects import IMAGES, LABELS, quick, same, state, weights

pytestmark = pytest.mark.usefixtures("one_torch_thread")

#: Batches of an epoch of ``quick``.
STEPS = 3


class BadFrom(nn.Module):
    """Cross-entropy that is bad after some steps: its value, or its gradient, is not finite."""

    def __init__(self, step, value=float("nan"), where="loss"):
        super().__init__()
        self.step, self.value, self.where = step, value, where
        self.seen = 0

    def forward(self, logits, target):
        loss = nn.functional.cross_entropy(logits, target, ignore_index=-1)
        if not torch.is_grad_enabled():  # scores of held-out images
            return loss
        self.seen += 1
        if self.seen <= self.step:
            return loss
        if self.where == "loss":
            return loss * self.value
        return loss + (logits * 0).sum().abs().sqrt()


@pytest.mark.parametrize("validation", [None, (IMAGES, LABELS)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_epoch_of_a_bad_loss_is_cut_short_and_those_before_are_kept(value, validation):
    loss = BadFrom(2 * STEPS + 1, value)
    model = quick(loss=loss, max_epochs=9, schedule="constant", validation=validation)
    with pytest.warns(ConvergenceWarning, match=f"diverged in epoch 3, .* {value}.* lower lr"):
        model.fit(IMAGES, LABELS)
    assert model.net_.criterion_.loss.loss.seen == 2 * STEPS + 2
    assert len(model.net_.history) == 2
    assert np.isfinite(model.net_.history[:, "train_loss"]).all()
    assert are_finite(model.net_.module_)
    good = quick(loss=BadFrom(99), max_epochs=2, schedule="constant", validation=validation)
    good.fit(IMAGES, LABELS)
    if validation is None:
        assert same(weights(model), weights(good))
    else:
        assert model.score(IMAGES, LABELS) == max(good.net_.history[:, "valid_mean_iou"])
    assert np.isfinite(model.transform(IMAGES)[0].unary).all()


def test_a_bad_slope_at_the_end_of_an_epoch_spoils_no_weights():
    model = quick(loss=BadFrom(2 * STEPS - 1, where="gradient"), max_epochs=4)
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 2, .* weights that are not"):
        model.fit(IMAGES, LABELS)
    assert len(model.net_.history) == 1
    assert are_finite(model.net_.module_)


def test_without_validation_the_epoch_of_the_lowest_loss_is_kept():
    class Worsening(BadFrom):
        def forward(self, logits, target):
            worse = 100 if self.seen >= STEPS else 0
            return super().forward(logits, target) + worse

    model = quick(loss=Worsening(2 * STEPS), max_epochs=5, schedule="constant")
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 3"):
        model.fit(IMAGES, LABELS)
    good = quick(loss=BadFrom(99), max_epochs=1, schedule="constant").fit(IMAGES, LABELS)
    assert same(weights(model), weights(good))


@pytest.mark.parametrize("step", [0, 1])
def test_where_no_epoch_was_good_the_error_says_what_to_do(step):
    model = quick(loss=BadFrom(step))
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1; pass a lower lr .*Clipping"):
        model.fit(IMAGES, LABELS)
    assert not hasattr(model, "net_")


def test_a_network_that_was_trained_before_stays_as_it_was():
    model = quick().fit(IMAGES, LABELS)
    before, network = state(model), model.net_
    with pytest.raises(ValueError, match="training diverged: the loss is nan in epoch 1"):
        model.set_params(loss=BadFrom(0)).partial_fit(IMAGES, LABELS)
    assert model.net_ is network
    assert same(before, state(model))


class Kill(Callback):
    """Raise an error in the third epoch, like a crash."""

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == 3:
            raise MemoryError("killed")


def test_a_resumed_training_keeps_the_same_epoch(tmp_path):
    """The second epoch is worse than the first; the third is killed, and diverges later."""

    class Worsening(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

        def forward(self, logits, target):
            self.seen += 1
            loss = nn.functional.cross_entropy(logits, target, ignore_index=-1)
            bad = float("nan") if self.seen > 2 * STEPS + 1 else 1.0
            return (loss + (10.0 if self.seen > STEPS else 0.0)) * bad

    made = []
    for directory in (tmp_path / "whole", tmp_path / "killed"):
        settings = {"max_epochs": 5, "loss": Worsening(), "checkpoint": directory}
        if directory.name == "killed":
            with pytest.raises(MemoryError, match="killed"):
                quick(**settings, callbacks=[("kill", Kill())]).fit(IMAGES, LABELS)
        with pytest.warns(ConvergenceWarning, match="diverged in epoch 3"):
            made.append(weights(quick(**settings).fit(IMAGES, LABELS)))
    assert same(*made)
    fresh = quick(max_epochs=5, loss=Worsening())
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 3"):
        assert same(weights(fresh.fit(IMAGES, LABELS)), made[0])
