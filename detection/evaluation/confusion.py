"""Which categories are taken for which, at one score threshold, and in which images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.data.columns import Integers, Numbers
from detection.evaluation.tables import (
    CocoTruth,
    Flags,
    FoundTable,
    ImageRows,
    each_image,
    in_crowd,
    overlaps,
)

BACKGROUND = "background"


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """What was found of every category, and image by image how much.

    Detections from a score on, surest first, each take the free object that they overlap most; one
    of their own category goes before all others. An object without a detection was taken for
    background, a detection without an object is background taken for its category: a second
    detection of an object is such a one too. What lies in a crowd of its category does not count.
    """

    score_threshold: float
    iou: float
    """Overlap from which on a detection can take an object."""
    class_names: tuple[str, ...]
    """(K,)."""
    counts: NDArray[np.int64]
    """(K + 1, K + 1) objects of category ``row`` detected as ``column``; the last is background."""
    images: Integers
    """(I,) places of the images."""
    right: Integers
    """(I,) objects found as what they are."""
    false: Integers
    """(I,) detections that are not."""
    missed: Integers
    """(I,) objects not found as what they are."""

    def to_dict(self) -> dict[str, Any]:
        """Return the matrix as JSON's types."""
        return {
            "score_threshold": self.score_threshold,
            "iou": self.iou,
            "names": [*self.class_names, BACKGROUND],
            "counts": self.counts.tolist(),
        }


def confuse(
    truth: CocoTruth,
    found: FoundTable,
    *,
    images: Integers,
    score_threshold: float,
    iou: float = 0.5,
) -> Confusion:
    """Count which categories are taken for which.

    Args:
        truth: the objects.
        found: the detections.
        images: places of the images to look at.
        score_threshold: detections below it are left out.
        iou: overlap from which on a detection can take an object.
    """
    background = truth.category_ids.size
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    tallies = np.zeros((images.size, 3), dtype=np.int64)
    sure = found.take(found.scores >= score_threshold)
    for number, rows in enumerate(each_image(truth, sure, images, max_found=len(sure))):
        partner = _partners(truth, sure, rows, iou=iou)
        counted = (partner >= 0) | ~in_crowd(truth, sure, rows, iou=iou)
        labels = truth.labels[rows.objects]
        left = np.setdiff1d(np.arange(labels.size), partner)
        # The place of no object, -1, is that of the background behind the labels.
        actual = np.concatenate([np.append(labels, background)[partner[counted]], labels[left]])
        detected = np.concatenate(
            [sure.labels[rows.found[counted]], np.full(left.size, background)]
        )
        np.add.at(counts, (actual, detected), 1)
        right = int((actual == detected).sum())
        tallies[number] = right, int(counted.sum()) - right, rows.objects.size - right
    return Confusion(score_threshold, iou, truth.class_names, counts, images, *tallies.T)


def _partners(truth: CocoTruth, found: FoundTable, rows: ImageRows, *, iou: float) -> Integers:
    """Return for each detection the object that it takes, as a place in the image's; -1: none."""
    # D detections, G objects
    iou_DG = overlaps(found.boxes[rows.found][:, None], truth.boxes[rows.objects], np.array(False))
    same_DG = found.labels[rows.found][:, None] == truth.labels[rows.objects]
    partner = np.full(rows.found.size, -1)
    free = np.ones(rows.objects.size, dtype=np.bool_)
    for candidates in (same_DG, ~same_DG):
        _take(np.where(candidates, iou_DG, 0.0), partner, free, iou=iou)
    return partner


def _take(iou_DG: Numbers, partner: Integers, free: Flags, *, iou: float) -> None:  # noqa: N803
    """Give each detection without an object, best first, the free one that it overlaps most."""
    for detection in np.flatnonzero((iou_DG >= iou).any(axis=1) & (partner < 0)):
        left = np.where(free, iou_DG[detection], 0.0)
        best = int(left.argmax())
        if left[best] >= iou:
            partner[detection] = best
            free[best] = False
