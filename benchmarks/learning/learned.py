"""Dense CRFs whose parameters are learned from the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.choice import Choice, Setting
from benchmarks.learning.costs import Part
from benchmarks.learning.scores import mean_iou, tables_of
from hybridseg import DenseCRF, Scene
from hybridseg.learning import Learner

#: The kernels from which learning starts. They are short, because poles are a few pixels wide.
KERNELS = {"spatial_width": 2.0, "bilateral_width": 20.0, "bilateral_color": 8.0}


def learned_weights(val: Part, setting: Setting) -> Choice:
    """Learn the weights of costs and kernels."""
    return _learned(val, setting, ("weights",))


def learned_labels(val: Part, setting: Setting) -> Choice:
    """Learn the weights, and what each pair of labels costs."""
    return _learned(val, setting, ("weights", "compatibility"))


def learned_all(val: Part, setting: Setting) -> Choice:
    """Learn the widths as well."""
    return _learned(val, setting, ("weights", "widths", "compatibility"))


def _learned(val: Part, setting: Setting, what: Sequence[str]) -> Choice:
    learner = Learner(what, random_state=setting.seed)
    model = DenseCRF(**KERNELS, n_iter=5, learn=learner).fit(val.scenes, val.truths)

    def predict(scene: Scene) -> NDArray[Any]:
        found: NDArray[Any] = model.predict([scene])[0]
        return found

    report = model.learning_
    assert report.gate is not None
    return Choice(
        predict,
        {
            "val_mean_iou": round(100 * mean_iou(tables_of(val, predict)), 2),
            "strength": report.strength,
            "spared": [val.classes[label] for label in report.gate.chosen_spared],
            "gains": np.round(100 * report.gate.gains, 2).tolist(),
            "params": {name: np.round(value, 3).tolist() for name, value in report.params.items()},
        },
    )
