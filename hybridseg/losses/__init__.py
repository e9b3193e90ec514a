"""Losses of logits ``(B, L, *spatial)`` and class indices ``(B, *spatial)``, in 2-D and 3-D.

Negative class indices are void: such pixels have no effect, so sparse scribbles can be learned
from. Losses are added and scaled: ``CrossEntropy() + 0.5 * SoftDice()`` is also a loss. Class
weights are computed from label maps: ``CrossEntropy(median_frequency(count_classes(y)))``.
"""

from hybridseg.losses.base import Loss, SumOf
from hybridseg.losses.class_weights import (
    ClassCounts,
    count_classes,
    effective_number,
    inverse_frequency,
    log_frequency,
    median_frequency,
)
from hybridseg.losses.combined import DeepSupervision, MultiTask
from hybridseg.losses.distance_maps import gap_weights, signed_distances
from hybridseg.losses.pixels import (
    BoundaryWeightedCrossEntropy,
    CrossEntropy,
    Focal,
    GapWeightedCrossEntropy,
)
from hybridseg.losses.regions import (
    BoundaryDistance,
    GeneralizedDice,
    LovaszHinge,
    LovaszSoftmax,
    SoftDice,
    Tversky,
)

__all__ = [
    "BoundaryDistance",
    "BoundaryWeightedCrossEntropy",
    "ClassCounts",
    "CrossEntropy",
    "DeepSupervision",
    "Focal",
    "GapWeightedCrossEntropy",
    "GeneralizedDice",
    "Loss",
    "LovaszHinge",
    "LovaszSoftmax",
    "MultiTask",
    "SoftDice",
    "SumOf",
    "Tversky",
    "count_classes",
    "effective_number",
    "gap_weights",
    "inverse_frequency",
    "log_frequency",
    "median_frequency",
    "signed_distances",
]
