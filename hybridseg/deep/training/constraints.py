"""What each parameter of a DeepSegmenter may be."""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any

from torch import nn

from hybridseg.base import CLASSES, IGNORE_LABEL, INTENSITY_RANGE, Interval, StrOptions
from hybridseg.deep.prediction.half import PRECISIONS
from hybridseg.deep.prediction.views import Views
from hybridseg.deep.training.augment import AUGMENTS
from hybridseg.deep.training.loop import SCHEDULES
from hybridseg.deep.training.loss import CLASS_WEIGHTS, LOSSES

#: Constraints in the form of scikit-learn.
CONSTRAINTS: dict[str, Any] = {
    "network": [str, nn.Module, callable],
    "network_options": [dict, None],
    "max_epochs": [Interval(Integral, 1, None, closed="left")],
    "crops_per_image": [Interval(Integral, 1, None, closed="left"), None],
    "crop_size": [Interval(Integral, 1, None, closed="left"), tuple, list],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "accumulate": [Interval(Integral, 1, None, closed="left")],
    "augment": [StrOptions(set(AUGMENTS)), callable, None],
    "loss": [StrOptions(set(LOSSES)), callable],
    "class_weight": [StrOptions(set(CLASS_WEIGHTS)), dict, "array-like", None],
    "optimizer": [callable],
    "lr": [Interval(Real, 0, None, closed="neither")],
    "encoder_lr_factor": [Interval(Real, 0, None, closed="left")],
    "schedule": [StrOptions(set(SCHEDULES))],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "precision": [StrOptions(set(PRECISIONS))],
    "validation": [Interval(Real, 0, 1, closed="neither"), tuple, list, None],
    "patience": [Interval(Integral, 1, None, closed="left"), None],
    "checkpoint": [str, os.PathLike, None],
    "warm_start": ["boolean"],
    "callbacks": [list, tuple, None],
    "n_jobs": [Integral, None],
    "tile": [Interval(Integral, 1, None, closed="left"), tuple, list, None],
    "overlap": [Interval(Integral, 0, None, closed="left"), None],
    "tta": [StrOptions({"mirror"}), Views, None],
    "mirror_pairs": [tuple, list],
    "device": [str],
    "verbose": ["verbose"],
    "spacing": [Real, "array-like", None],
    "classes": CLASSES,
    "intensity_range": INTENSITY_RANGE,
    "ignore_label": IGNORE_LABEL,
    "random_state": ["random_state"],
    "crf": ["boolean", dict, nn.Module],
    "crf_start": [Interval(Real, 0, 1, closed="left")],
}
