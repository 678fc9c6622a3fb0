"""Confusion matrix and per-image TP/FP/FN counts at one score threshold.

``hotcoco`` has a confusion matrix too, but matches by IoU alone: of two overlapping objects, a
detection may take the one of another category. Here an object of its own category goes first, and
detections in crowds do not count. hotcoco has no counts per image at a matching that fits the
matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.data.coco import GroundTruth
from detection.data.columns import Flags, Integers, Numbers
from detection.evaluation.tables import (
    DetectionTable,
    ImageRows,
    in_crowd,
    iterate_images,
    pairwise_iou,
)

BACKGROUND = "background"


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Confusion matrix of all categories and the background, and counts of each image.

    Detections above the score threshold, by descending score, each match the free object with the
    highest IoU; an object of their own category goes before all others. An object without a
    detection counts as background; a detection without an object, also a second detection of one,
    as background detected as its category. Detections in a crowd of their category do not count.
    """

    score_threshold: float
    iou: float
    """Minimum IoU of a match."""
    class_names: tuple[str, ...]
    """(K,)."""
    counts: NDArray[np.int64]
    """(K + 1, K + 1) objects of category ``row`` detected as ``column``; the last is background."""
    images: Integers
    """(I,) indices of the images."""
    right: Integers
    """(I,) true positives: objects detected as their category."""
    false: Integers
    """(I,) false positives."""
    missed: Integers
    """(I,) false negatives."""

    def to_dict(self) -> dict[str, Any]:
        """Return the matrix as JSON types."""
        return {
            "score_threshold": self.score_threshold,
            "iou": self.iou,
            "names": [*self.class_names, BACKGROUND],
            "counts": self.counts.tolist(),
        }


def compute_confusion(
    truth: GroundTruth,
    detections: DetectionTable,
    *,
    images: Integers,
    score_threshold: float,
    iou: float = 0.5,
) -> Confusion:
    """Compute the confusion matrix and the counts of each image.

    Args:
        truth: the objects.
        detections: the detections.
        images: indices of the images to look at.
        score_threshold: detections below it are left out.
        iou: minimum IoU of a match.
    """
    background = truth.category_ids.size
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    tallies = np.zeros((images.size, 3), dtype=np.int64)
    kept = detections.take(detections.scores >= score_threshold)
    for number, rows in enumerate(iterate_images(truth, kept, images, max_detections=len(kept))):
        matches = _match(truth, kept, rows, iou=iou)
        counted = (matches >= 0) | ~in_crowd(truth, kept, rows, iou=iou)
        labels = truth.labels[rows.objects]
        unmatched = np.setdiff1d(np.arange(labels.size), matches)
        # Index -1, no object, is that of the background behind the labels.
        actual = np.concatenate(
            [np.append(labels, background)[matches[counted]], labels[unmatched]]
        )
        detected = np.concatenate(
            [kept.labels[rows.detections[counted]], np.full(unmatched.size, background)]
        )
        np.add.at(counts, (actual, detected), 1)
        right = int((actual == detected).sum())
        tallies[number] = right, int(counted.sum()) - right, rows.objects.size - right
    return Confusion(score_threshold, iou, truth.class_names, counts, images, *tallies.T)


def _match(
    truth: GroundTruth, detections: DetectionTable, rows: ImageRows, *, iou: float
) -> Integers:
    """Return the object of each detection as an index into those of the image; -1: none."""
    # D detections, G objects
    iou_DG, same_DG = pairwise_iou(truth, detections, rows)
    matches = np.full(rows.detections.size, -1)
    free = np.ones(rows.objects.size, dtype=np.bool_)
    for candidates in (same_DG, ~same_DG):
        _match_free(np.where(candidates, iou_DG, 0.0), matches, free, iou=iou)
    return matches


def _match_free(iou_DG: Numbers, matches: Integers, free: Flags, *, iou: float) -> None:  # noqa: N803
    """Match each unmatched detection, best first, to the free object with the highest IoU."""
    for detection in np.flatnonzero((iou_DG >= iou).any(axis=1) & (matches < 0)):
        candidates = np.where(free, iou_DG[detection], 0.0)
        best = int(candidates.argmax())
        if candidates[best] >= iou:
            matches[detection] = best
            free[best] = False
