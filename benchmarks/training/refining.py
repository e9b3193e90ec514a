"""The choice of a refiner for a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridseg.metrics import confusion_table


def best_refiner(refiners: Sequence[Any], model: Any, X: Any, y: Any) -> Any:
    """Return the refiner with the highest mean IoU on images that the network predicts once."""
    truths = [np.asarray(truth) for truth in y]
    scenes = [scene.replace(unary=np.asarray(scene.unary)) for scene in model.transform(X)]
    return max(refiners, key=lambda each: confusion_table(truths, each.predict(scenes)).mean_iou())


def described(refiner: Any) -> str:
    """Return a refiner as text on one line."""
    return " ".join(repr(refiner).split())
