"""Single-object localization accuracy (ILSVRC top-1 and top-5).

ILSVRC's localization task (Russakovsky et al. 2015, section 4.2) counts an image as right if a box
overlaps an object of its category with an IoU above 0.5. It takes five guesses per image; with one
guess the accuracy is stricter. Both are computed here, each also without regard to categories.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detection.data.coco import GroundTruth
from detection.data.columns import Integers
from detection.evaluation.tables import DetectionTable, iterate_images, pairwise_iou

MIN_IOU = 0.5
"""A box must overlap by more."""
NUM_GUESSES = 5
"""Guesses per image in ILSVRC."""


@dataclass(frozen=True, slots=True)
class LocalizationMetrics:
    """Percentage of the images with an object that are right; None without such images.

    In an image with several objects, one that is localized is enough. Crowds are not objects, and
    an image without detections is wrong.
    """

    num_images: int
    """Images with an object."""
    top1: float | None
    """The highest-scoring box has an IoU above 0.5 with an object of its category."""
    top1_any_class: float | None
    """The highest-scoring box has an IoU above 0.5 with an object of any category."""
    top1_class: float | None
    """The category of the highest-scoring box is in the image, whatever the box."""
    top5: float | None
    """One of the five highest-scoring boxes has an IoU above 0.5 with an object of its category:
    ILSVRC's own metric."""
    top5_any_class: float | None
    """The same with an object of any category."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def measure_localization(
    truth: GroundTruth, detections: DetectionTable, *, images: Integers
) -> LocalizationMetrics:
    """Compute the localization accuracy.

    Args:
        truth: the objects.
        detections: the detections.
        images: indices of the images to look at; those without objects are left out.
    """
    right = []
    for rows in iterate_images(truth, detections, images, max_detections=NUM_GUESSES):
        if not rows.objects.size:
            continue
        # D detections, G objects
        iou_DG, same_DG = pairwise_iou(truth, detections, rows)
        on_DG = iou_DG > MIN_IOU
        right_DG = on_DG & same_DG
        right.append(
            (right_DG[:1].any(), on_DG[:1].any(), same_DG[:1].any(), right_DG.any(), on_DG.any())
        )
    if not right:
        return LocalizationMetrics(0, None, None, None, None, None)
    return LocalizationMetrics(len(right), *(100 * np.mean(right, axis=0)).tolist())


def describe_localization(metrics: LocalizationMetrics) -> str:
    """Format the metrics in three lines, in percent."""

    def percent(value: float | None) -> str:
        return "n/a" if value is None else f"{value:.1f}"

    return (
        f"images with an object {metrics.num_images}\n"
        f"top-1 localization {percent(metrics.top1)}  of any class "
        f"{percent(metrics.top1_any_class)}  class accuracy {percent(metrics.top1_class)}\n"
        f"top-5 localization {percent(metrics.top5)}  of any class "
        f"{percent(metrics.top5_any_class)}"
    )
