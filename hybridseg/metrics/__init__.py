"""Scores of label maps and probabilities. Void truth is dropped; an absent class scores NaN."""

from hybridseg.metrics.boundary import boundary_iou, boundary_iou_per_class
from hybridseg.metrics.calibration import expected_calibration_error
from hybridseg.metrics.overlap import iou_per_class, mean_dice, mean_iou, pixel_accuracy
from hybridseg.metrics.regions import (
    achievable_accuracy,
    boundary_recall,
    undersegmentation_error,
)
from hybridseg.metrics.table import ConfusionTable, confusion_table
from hybridseg.metrics.trimap import trimap_iou

__all__ = [
    "ConfusionTable",
    "achievable_accuracy",
    "boundary_iou",
    "boundary_iou_per_class",
    "boundary_recall",
    "confusion_table",
    "expected_calibration_error",
    "iou_per_class",
    "mean_dice",
    "mean_iou",
    "pixel_accuracy",
    "trimap_iou",
    "undersegmentation_error",
]
