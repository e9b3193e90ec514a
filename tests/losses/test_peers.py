"""Losses equal those of other libraries with the same definition.

The numbers were computed with segmentation_models_pytorch 0.6.0, MONAI 1.6.1 and torchvision
0.29.1; if a library is installed, its loss is computed again.
"""

import numpy as np
import pytest
import torch

from hybridseg.losses import (
    BoundaryDistance,
    Focal,
    GeneralizedDice,
    LovaszHinge,
    LovaszSoftmax,
    SoftDice,
    Tversky,
)


def wave(*shape, seed):
    i = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return (3 * torch.sin(1.7 * i + seed) + torch.cos(0.31 * i * seed)).reshape(shape)


LOGITS = wave(2, 3, 6, 7, seed=1)
LABELS = wave(2, 3, 6, 7, seed=2).argmax(dim=1)
VOIDED = LABELS.clone()
VOIDED[:, 2:4, 1:5] = -1
PAIR = LABELS.clamp(max=1), VOIDED.clamp(max=1)
#: smp adds its smooth to TP / (TP + FP/2 + FN/2), MONAI and this package to twice this fraction.
EQUALS = {
    "smp DiceLoss": (SoftDice(smooth=2.0), LABELS, 0.5095658080),
    "smp DiceLoss, void": (SoftDice(smooth=2.0), VOIDED, 0.4998020481),
    "smp JaccardLoss": (Tversky(1, 1, smooth=1.0), LABELS, 0.6732540282),
    "smp TverskyLoss": (Tversky(smooth=1.0), LABELS, 0.5093973883),
    "smp LovaszLoss": (LovaszSoftmax(), LABELS, 0.6673851013),
    "smp LovaszLoss, void": (LovaszSoftmax(), VOIDED, 0.6621727347),
    "smp LovaszLoss, per_image": (LovaszSoftmax(per_image=True), LABELS, 0.6672517061),
    "smp LovaszLoss, binary": (LovaszHinge(), PAIR[0], 3.0061750412),
    "smp LovaszLoss, binary, void": (LovaszHinge(per_image=True), PAIR[1], 2.9560980797),
    "monai DiceLoss": (SoftDice(smooth=1.0, per_image=True), LABELS, 0.5097922136),
    "monai DiceLoss, squared": (SoftDice(smooth=1.0, squared=True), LABELS, 0.4653157089),
    "monai DiceLoss, foreground": (SoftDice(smooth=1.0, classes=[1, 2]), LABELS, 0.4953029732),
    "monai GeneralizedDiceLoss": (GeneralizedDice(per_image=True), LABELS, 0.5358399781),
    "monai TverskyLoss": (Tversky(smooth=1.0), LABELS, 0.5093973883),
    # MONAI takes the mean over the classes, and all but one are zero
    "monai FocalLoss": (Focal(), LABELS, 3 * 0.4248187840),
    "monai BoundaryLoss": (BoundaryDistance(), LABELS, 0.1895101132),
    "monai BoundaryLoss, foreground": (BoundaryDistance([1, 2]), LABELS, 0.1804893544),
    "torchvision sigmoid_focal_loss": (Focal(), PAIR[0], 1.8058915397),
}


@pytest.mark.parametrize("name", EQUALS)
def test_equals_the_result_of_the_other_library(name):
    loss, labels, expected = EQUALS[name]
    logits = LOGITS[:, :2] if labels.max() == 1 else LOGITS
    assert float(loss(logits, labels)) == pytest.approx(expected, rel=1e-7)


def test_segmentation_models_pytorch_gives_it_now():
    smp = pytest.importorskip("segmentation_models_pytorch").losses
    scores = (LOGITS[:, 1] - LOGITS[:, 0]).unsqueeze(1)
    many, two = smp.MULTICLASS_MODE, smp.BINARY_MODE
    dice = {"mode": many, "smooth": 1.0}
    found = {
        "smp DiceLoss": smp.DiceLoss(**dice)(LOGITS, LABELS),
        "smp DiceLoss, void": smp.DiceLoss(**dice, ignore_index=-1)(LOGITS, VOIDED),
        "smp JaccardLoss": smp.JaccardLoss(**dice)(LOGITS, LABELS),
        "smp TverskyLoss": smp.TverskyLoss(**dice, alpha=0.3, beta=0.7)(LOGITS, LABELS),
        "smp LovaszLoss": smp.LovaszLoss(many)(LOGITS.float(), LABELS),
        "smp LovaszLoss, void": smp.LovaszLoss(many, ignore_index=-1)(LOGITS.float(), VOIDED),
        "smp LovaszLoss, per_image": smp.LovaszLoss(many, per_image=True)(LOGITS.float(), LABELS),
        "smp LovaszLoss, binary": smp.LovaszLoss(two)(scores.float(), PAIR[0]),
        "smp LovaszLoss, binary, void": smp.LovaszLoss(two, per_image=True, ignore_index=-1)(
            scores.float(), PAIR[1]
        ),
    }
    check_all(found, "smp")


def test_monai_gives_it_now():
    losses = pytest.importorskip("monai.losses")
    common = {"softmax": True, "to_onehot_y": True}
    smooth = common | {"smooth_nr": 1.0, "smooth_dr": 1.0}
    made = {
        "monai DiceLoss": losses.DiceLoss(**smooth),
        "monai DiceLoss, squared": losses.DiceLoss(**smooth, squared_pred=True, batch=True),
        "monai DiceLoss, foreground": losses.DiceLoss(
            **smooth, include_background=False, batch=True
        ),
        "monai GeneralizedDiceLoss": losses.GeneralizedDiceLoss(
            **common, smooth_nr=0.0, smooth_dr=0.0
        ),
        "monai TverskyLoss": losses.TverskyLoss(**smooth, alpha=0.3, beta=0.7, batch=True),
        "monai FocalLoss": losses.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0),
        "monai BoundaryLoss": losses.BoundaryLoss(**common),
        "monai BoundaryLoss, foreground": losses.BoundaryLoss(**common, include_background=False),
    }
    found = {name: loss(LOGITS, LABELS.unsqueeze(1)) for name, loss in made.items()}
    found["monai FocalLoss"] *= 3
    check_all(found, "monai")


def test_torchvision_gives_it_now():
    ops = pytest.importorskip("torchvision.ops")
    scores = LOGITS[:, 1] - LOGITS[:, 0]
    found = ops.sigmoid_focal_loss(scores, PAIR[0].double(), alpha=-1, gamma=2, reduction="mean")
    check_all({"torchvision sigmoid_focal_loss": found}, "torchvision")


def check_all(found, library):
    assert set(found) == {name for name in EQUALS if name.startswith(library)}
    for name, value in found.items():
        assert float(value) == pytest.approx(EQUALS[name][2], rel=1e-6), name
