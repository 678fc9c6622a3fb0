"""How often the surest box is on the object: single-object localization.

ILSVRC's localization task (Russakovsky et al. 2015, section 4.2) counts an image as right if the
box overlaps an object of the named category by more than 0.5. It looks at five guesses per image;
with one guess the figure is stricter. Both are given here, each also without regard to categories.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detection.data.columns import Integers
from detection.evaluation.tables import CocoTruth, FoundTable, each_image, overlaps

MIN_IOU = 0.5
"""A box must overlap by more."""
GUESSES = 5
"""Of ILSVRC."""


@dataclass(frozen=True, slots=True)
class LocalizationMetrics:
    """Shares of the images that have an object, in percent; None without such images.

    Where an image has several objects, one that is found is enough. Crowds are not objects, and an
    image without detections is wrong.
    """

    num_images: int
    """Images with an object."""
    top1: float | None
    """The surest box overlaps an object of its category by more than 0.5."""
    top1_any_class: float | None
    """The surest box overlaps an object of any category so."""
    top1_class: float | None
    """The surest box's category is in the image, wherever the box is."""
    top5: float | None
    """One of the five surest boxes overlaps an object of its category so: ILSVRC's own."""
    top5_any_class: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON's types."""
        return asdict(self)


def measure_localization(
    truth: CocoTruth, found: FoundTable, *, images: Integers
) -> LocalizationMetrics:
    """Count the images in which the surest boxes are on an object.

    Args:
        truth: the objects.
        found: the detections.
        images: places of the images to look at; those without objects are left out.
    """
    rights = []
    for rows in each_image(truth, found, images, max_found=GUESSES):
        if not rows.objects.size:
            continue
        # D detections, G objects
        boxes_D1 = found.boxes[rows.found][:, None]
        on_DG = overlaps(boxes_D1, truth.boxes[rows.objects], np.array(False)) > MIN_IOU
        same_DG = found.labels[rows.found][:, None] == truth.labels[rows.objects]
        right_DG = on_DG & same_DG
        rights.append(
            (right_DG[:1].any(), on_DG[:1].any(), same_DG[:1].any(), right_DG.any(), on_DG.any())
        )
    if not rights:
        return LocalizationMetrics(0, None, None, None, None, None)
    return LocalizationMetrics(len(rights), *(100 * np.mean(rights, axis=0)).tolist())


def describe_localization(metrics: LocalizationMetrics) -> str:
    """Say the figures in a few lines, in percent."""

    def say(value: float | None) -> str:
        return "n/a" if value is None else f"{value:.1f}"

    return (
        f"images with an object {metrics.num_images}\n"
        f"surest box on an object of its class {say(metrics.top1)}  of any class "
        f"{say(metrics.top1_any_class)}  right class {say(metrics.top1_class)}\n"
        f"one of five on an object of its class {say(metrics.top5)}  of any class "
        f"{say(metrics.top5_any_class)}"
    )
