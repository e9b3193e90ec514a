"""The methods that are compared. A later one is compared with every earlier one."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from benchmarks.learning.bias import learned_bias
from benchmarks.learning.choice import Choice, Method, Setting
from benchmarks.learning.costs import Part
from benchmarks.learning.learned import learned_all, learned_labels, learned_weights
from benchmarks.learning.scores import mean_iou, tables_of
from benchmarks.learning.search import random_search
from hybridseg import Scene


def alone(val: Part, setting: Setting) -> Choice:  # noqa: ARG001
    """Return the labels of least cost; nothing is chosen."""
    score = mean_iou(tables_of(val, _least))
    return Choice(_least, {"val_mean_iou": round(100 * score, 2)})


def _least(scene: Scene) -> NDArray[Any]:
    return scene.prediction


def methods() -> dict[str, Method]:
    """Return the methods by name, in the order of the table."""
    return {
        "alone": alone,
        "bias": learned_bias,
        "pydensecrf2": random_search,
        "learned weights": learned_weights,
        "learned labels": learned_labels,
        "learned all": learned_all,
    }
