"""Scores: (truth, prediction) -> number. Void truth is dropped; an absent class is NaN."""

from hybridseg.metrics.boundary import boundary_iou, boundary_iou_per_class
from hybridseg.metrics.overlap import iou_per_class, mean_dice, mean_iou, pixel_accuracy
from hybridseg.metrics.table import ConfusionTable, confusion_table

__all__ = [
    "ConfusionTable",
    "boundary_iou",
    "boundary_iou_per_class",
    "confusion_table",
    "iou_per_class",
    "mean_dice",
    "mean_iou",
    "pixel_accuracy",
]
