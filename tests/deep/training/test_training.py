"""A training from beginning to end: what it refuses, its workers, auxiliary heads, volumes."""

import copy

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.model_selection import KFold, cross_val_score
from skorch.callbacks import Callback
from torch import nn

from hybridseg.losses import CrossEntropy, DeepSupervision
from hybridseg.metrics import mean_iou
from hybridseg.networks import BiSeNet, adapt
from hybridseg.unary import Augmentation
from tests.deep.subjects import IMAGES, LABELS, quick, same, volumes, weights

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"loss": "hinge"}, ValueError, "'loss' parameter"),
        ({"loss": len}, TypeError, "loss is a builtin_function.*expected a name or a torch"),
        ({"loss": CrossEntropy(), "class_weight": "balanced"}, ValueError, "pass the weights to"),
        ({"loss": "generalized_dice", "class_weight": [1, 1, 1]}, ValueError, "no class weights"),
        ({"class_weight": {8: 1.0}}, ValueError, r"values \[8\], but the classes are \[0, 1, 2\]"),
        ({"class_weight": [1, 2]}, ValueError, r"shape \(2,\), but the classes are \[0, 1, 2\]"),
        ({"precision": "float16"}, ValueError, "precision='float16' is for GPUs"),
        ({"patience": 3}, ValueError, "patience=3, but validation=None"),
        ({"validation": (1, 2, 3)}, ValueError, "validation has 3 elements"),
        ({"crop_size": (8, 8, 8)}, ValueError, r"crop_size=\(8, 8, 8\); .* 2 axes"),
        ({"network": nn.Conv2d(3, 3, 1), "network_options": None, "encoder_lr_factor": 0.1},
         ValueError, "Conv2d has no encoder"),
        ({"network": "unet3d", "network_options": None}, ValueError, "UNet3D segments volumes"),
        ({"network": nn.Conv2d(3, 6, 1), "network_options": None},
         ValueError, "the network has 6 outputs, but y has 3 classes; make it"),
        ({"network": nn.Conv2d(3, 3, 2), "network_options": None},
         ValueError, r"output is \(2, 3, 15, 15\); expected logits \(B, L, H, W\)"),
        ({"tile": (8, 8, 8)}, ValueError, r"tile=\(8, 8, 8\); .* 2 axes"),
        ({"tile": 8, "overlap": 8}, ValueError, "overlap=8, but tile=8; expected an overlap"),
    ],
)  # fmt: skip
def test_mistakes_are_named(wrong, error, match):
    with pytest.raises(error, match=match):
        quick(**wrong).fit(IMAGES, LABELS)


# Workers


class Recording(Callback):
    def on_batch_begin(self, net, batch, training, **kwargs):
        self.seen_ = [*getattr(self, "seen_", []), batch[0].double().sum().item()]


def test_workers_make_the_same_crops():
    made = []
    for n_jobs in (None, 2):
        model = quick(n_jobs=n_jobs, callbacks=[("seen", Recording())]).fit(IMAGES, LABELS)
        made.append((dict(model.net_.callbacks_)["seen"].seen_, weights(model)))
    assert made[0][0] == made[1][0]
    assert same(made[0][1], made[1][1])


def test_workers_have_no_workers():
    model = quick(n_jobs=2, max_epochs=1)
    with parallel_config("loky", inner_max_num_threads=1):
        scores = cross_val_score(model, IMAGES, LABELS, cv=KFold(2), n_jobs=2, error_score="raise")
    expected = cross_val_score(quick(max_epochs=1), IMAGES, LABELS, cv=KFold(2))
    np.testing.assert_allclose(scores, expected)


# Auxiliary heads


class TwoHeads(nn.Module):
    def __init__(self, in_channels, n_classes, kind):
        super().__init__()
        self.main = nn.Conv2d(in_channels, n_classes, 1)
        self.coarse = nn.Conv2d(in_channels, n_classes, 2, stride=2)
        self.kind = kind

    def forward(self, images):
        main = self.main(images)
        if not self.training:
            return main
        if self.kind == "dict":
            return {"out": main, "aux": self.coarse(images), "none": None}
        return main, self.coarse(images)


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_auxiliary_heads_learn_too(kind):
    options = {"kind": kind}
    model = quick(network=TwoHeads, network_options=options, max_epochs=1)
    other = copy.deepcopy(model).set_params(max_epochs=3).fit(IMAGES, LABELS)
    model.fit(IMAGES, LABELS)
    assert not torch.equal(model.net_.module_.coarse.weight, other.net_.module_.coarse.weight)
    assert model.predict(IMAGES)[0].shape == LABELS[0].shape


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_auxiliary_heads_of_adapted_networks_learn_as_well(kind):
    found = []
    for wrap in (lambda network: network, adapt):
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            start = TwoHeads(3, 3, kind)
        model = quick(network=wrap(start), network_options=None).fit(IMAGES, LABELS)
        trained = model.net_.module_
        found.append(getattr(trained, "network", trained).coarse.weight)
        assert not torch.equal(found[-1], start.coarse.weight)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_auxiliary_heads_of_bisenet():
    options = {"width": 4, "auxiliary": True}
    loss = DeepSupervision(CrossEntropy(), [1.0, 1.0, 1.0])
    start = BiSeNet(3, 3, **options)
    model = quick(network=start, network_options=None, loss=loss, max_epochs=1).fit(IMAGES, LABELS)
    before, after = start.auxiliary.state_dict(), model.net_.module_.auxiliary.state_dict()
    assert not torch.equal(before["0.1.weight"], after["0.1.weight"])


# Volumes


@pytest.mark.parametrize(
    ("network", "options"),
    [("unet3d", {"width": 4, "depth": 1}), ("vnet", {"width": 4, "convs": (1, 1, 1)})],
)
def test_networks_learn_volumes(network, options):
    X, y = volumes()
    model = quick(
        network=network,
        network_options=options,
        augment=Augmentation("dihedral", scale=(0.8, 1.25)),
        crop_size=(8, 12, 12),
        crops_per_image=8,
        max_epochs=10,
        lr=1e-2,
    ).fit(X, y)
    assert model.spatial_ndim_ == 3
    assert mean_iou(y, model.predict(X)) > 0.6


def test_progress_bar(capsys):
    quick(verbose=2, max_epochs=1).fit(IMAGES, LABELS)
    assert "0/3 [" in capsys.readouterr().err
