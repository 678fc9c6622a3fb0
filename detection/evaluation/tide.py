"""TIDE error analysis: error types and the AP50 gained by fixing each.

The six types, their order of precedence and their fixes are those of Bolya, Foley, Hays, Hoffman:
"TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2. Where they
leave a choice, this module follows COCO's AP: categories without objects do not count, and
detections in a crowd of their category are neither right nor wrong.

``hotcoco`` computes the same analysis. Without crowds its counts and gains equal these; with crowds
it counts differently (15% crowds in 80 images: 121 instead of 112 localization errors), and it has
neither counts per category nor the type of each detection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from detection.data.coco import GroundTruth
from detection.data.columns import Flags, Integers, Numbers
from detection.evaluation.coco_eval import RECALLS
from detection.evaluation.tables import (
    DetectionTable,
    ImageRows,
    in_crowd,
    iterate_images,
    pairwise_iou,
)

ERROR_TYPES = {
    "classification": "IoU of at least 0.5 with an object of another category",
    "localization": "IoU of 0.1 to 0.5 with an object of its category",
    "both": "IoU of 0.1 to 0.5 with an object of another category only",
    "duplicate": "IoU of at least 0.5 with an object that a higher-scoring detection has matched",
    "background": "IoU below 0.1 with every object",
    "missed": "an object that no detection matches, even with its class or its box fixed",
}
"""Error type -> its definition; all but the last are errors of detections."""
FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1
MAX_DETECTIONS = 100
"""Per image, by descending score."""
RIGHT, UNCOUNTED = -1, -2
_NUMBER = {name: number for number, name in enumerate(ERROR_TYPES)}


@dataclass(frozen=True, slots=True)
class TideErrors:
    """Number of errors of each type, and the AP50 that fixing them gains."""

    ap50: float
    """AP in percent at IoU 0.5, of the best 100 detections of each image."""
    num_right: int
    """Detections that match an object."""
    counts: Mapping[str, int]
    """Error type -> number of detections; of objects for ``missed``."""
    gains: Mapping[str, float]
    """Error type -> points of AP50 that fixing it alone gains; never negative. Also
    ``false_positive``, if all wrong detections had the lowest scores, and ``false_negative``, if
    all objects without a detection were removed."""
    per_class: Mapping[str, Mapping[str, int]]
    """Category -> counts; errors of detections by the detection's category, missed objects by the
    object's."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; None stands for NaN."""
        return {
            "ap50": None if self.ap50 != self.ap50 else self.ap50,  # NaN
            "num_right": self.num_right,
            "counts": dict(self.counts),
            "gains": dict(self.gains),
            "per_class": {name: dict(counts) for name, counts in self.per_class.items()},
        }


@dataclass(frozen=True, slots=True, eq=False)
class ErrorAssignment:
    """Error type of every detection, and state of every object."""

    types: Integers
    """(D,) index into ``ERROR_TYPES``; -1: right; -2: in a crowd, or beyond the best of its
    image."""
    assigned: Integers
    """(D,) row of the object that fixing the class or the box would match; -1: none."""
    matched: Flags
    """(N,) objects that a detection matches."""
    missed: Flags
    """(N,) objects that no detection matches, even after such a fix."""
    rows: Integers
    """(M,) detections that count, image by image and by descending score."""


def classify_errors(
    truth: GroundTruth, detections: DetectionTable, *, images: Integers
) -> ErrorAssignment:
    """Find the error type of every detection and the objects that are missed.

    Args:
        truth: the objects.
        detections: the detections.
        images: indices of the images to look at.
    """
    types = np.full(len(detections), UNCOUNTED)
    assigned = np.full(len(detections), -1)
    matched = np.zeros(truth.labels.size, dtype=np.bool_)
    order = []
    for rows in iterate_images(truth, detections, images, max_detections=MAX_DETECTIONS):
        if not rows.detections.size:
            continue
        types[rows.detections], assigned[rows.detections] = _classify_image(
            truth, detections, rows, matched
        )
        order.append(rows.detections)
    rows_all = np.concatenate(order) if order else np.zeros(0, dtype=np.int64)
    missed = ~matched & ~truth.crowd & np.isin(truth.image_indices, images)
    missed[assigned[assigned >= 0]] = False
    counted = rows_all[types[rows_all] != UNCOUNTED]
    return ErrorAssignment(types, assigned, matched, missed, counted)


def _classify_image(
    truth: GroundTruth, detections: DetectionTable, rows: ImageRows, matched: Flags
) -> tuple[Integers, Integers]:
    """Return types and assigned objects of the detections of an image; update ``matched``."""
    # D detections, G objects
    iou_DG, same_DG = pairwise_iou(truth, detections, rows)
    own_DG, other_DG = np.where(same_DG, iou_DG, 0.0), np.where(same_DG, 0.0, iou_DG)
    right = _match(own_DG, rows, matched)
    uncounted = ~right & in_crowd(truth, detections, rows, iou=FOREGROUND_IOU)
    # A column of zeros, so that images without objects have a maximum.
    none = np.zeros((rows.detections.size, 1))
    own, other = (np.hstack([iou, none]).max(axis=1) for iou in (own_DG, other_DG))
    cases = {
        RIGHT: right,
        UNCOUNTED: uncounted,
        _NUMBER["localization"]: (own >= BACKGROUND_IOU) & (own < FOREGROUND_IOU),
        _NUMBER["classification"]: other >= FOREGROUND_IOU,
        _NUMBER["duplicate"]: own >= FOREGROUND_IOU,
        _NUMBER["both"]: other >= BACKGROUND_IOU,
    }
    types = np.select(list(cases.values()), list(cases), default=_NUMBER["background"])
    assigned = np.full(rows.detections.size, -1)
    for name, iou_of_type_DG in (("localization", own_DG), ("classification", other_DG)):
        wrong = np.flatnonzero(types == _NUMBER[name])
        if wrong.size:
            nearest = rows.objects[iou_of_type_DG[wrong].argmax(axis=1)]
            assigned[wrong] = np.where(matched[nearest], -1, nearest)
    return types, assigned


def _match(own_DG: Numbers, rows: ImageRows, matched: Flags) -> Flags:  # noqa: N803
    """Match each detection, best first, to the free object of its category with the highest IoU."""
    right = np.zeros(rows.detections.size, dtype=np.bool_)
    free = own_DG.copy()
    for detection in np.flatnonzero((own_DG >= FOREGROUND_IOU).any(axis=1)):
        backwards = free[detection, ::-1]  # of equal IoUs COCO takes the last
        best = backwards.size - 1 - int(backwards.argmax())
        if free[detection, best] >= FOREGROUND_IOU:
            right[detection] = True
            free[:, best] = 0
            matched[rows.objects[best]] = True
    return right


def compute_tide(truth: GroundTruth, detections: DetectionTable, *, images: Integers) -> TideErrors:
    """Count the errors of each type and compute the AP50 that fixing each alone gains.

    Args:
        truth: the objects.
        detections: the detections.
        images: indices of the images to look at.
    """
    errors = classify_errors(truth, detections, images=images)
    rows = errors.rows
    types, labels = errors.types[rows], detections.labels[rows]
    num_classes = truth.category_ids.size
    counted = ~truth.crowd & np.isin(truth.image_indices, images)
    state = _State(
        labels=labels,
        scores=detections.scores[rows],
        right=types == RIGHT,
        num_objects=np.bincount(truth.labels[counted], minlength=num_classes),
    )
    with_objects = state.num_objects > 0
    ap50 = state.ap(with_objects)
    fixed = {
        name: _fix(name, state, errors, truth).ap(with_objects)
        for name in (*ERROR_TYPES, "false_positive", "false_negative")
    }
    counts = np.zeros((len(ERROR_TYPES), num_classes), dtype=np.int64)
    np.add.at(counts, (types[types >= 0], labels[types >= 0]), 1)
    counts[_NUMBER["missed"]] = np.bincount(truth.labels[errors.missed], minlength=num_classes)
    return TideErrors(
        ap50=ap50,
        num_right=int(state.right.sum()),
        counts={name: int(counts[number].sum()) for name, number in _NUMBER.items()},
        # Fewer objects move the 101 recalls at which precision is read, which may cost a little.
        gains={name: max(ap - ap50, 0.0) if ap == ap else 0.0 for name, ap in fixed.items()},  # noqa: PLR0124
        per_class={
            category: {name: int(counts[number, label]) for name, number in _NUMBER.items()}
            for label, category in enumerate(truth.class_names)
        },
    )


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Inputs of an AP: detections as right or wrong, and numbers of objects."""

    labels: Integers
    """(D,) categories of the detections."""
    scores: Numbers
    right: Flags
    num_objects: Integers
    """(K,) objects of each category."""

    def ap(self, classes: Flags) -> float:
        """Return the mean AP in percent over some classes, NaN over none.

        A class without objects and detections is left out; if all are, the AP is 100.
        """
        order = np.lexsort((-self.scores, self.labels))
        bounds = np.searchsorted(self.labels[order], np.arange(classes.size + 1))
        values = []
        for label in np.flatnonzero(classes):
            right = self.right[order[bounds[label] : bounds[label + 1]]]
            if self.num_objects[label] or right.size:
                values.append(_average_precision(right, int(self.num_objects[label])))
        if not values:
            return 100.0 if classes.any() else float("nan")
        return 100 * float(np.mean(values))


def _average_precision(right: Flags, num_objects: int) -> float:
    """Return COCO's AP, mean precision at 101 recalls, of detections by descending score."""
    if not num_objects or not right.size:
        return 0.0
    num_right = np.cumsum(right)
    precision = num_right / np.arange(1, right.size + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(num_right / num_objects, RECALLS)].mean())


def _fix(name: str, state: _State, errors: ErrorAssignment, truth: GroundTruth) -> _State:
    """Return the state without errors of one type."""
    labels, scores, right, objects = state.labels, state.scores, state.right, state.num_objects
    match name:
        case "false_positive":
            return _State(labels, right.astype(np.float64), right, objects)
        case "false_negative":
            matched = np.bincount(truth.labels[errors.matched], minlength=objects.size)
            return _State(labels, scores, right, matched)
        case "missed":
            missed = np.bincount(truth.labels[errors.missed], minlength=objects.size)
            return _State(labels, scores, right, objects - missed)
    of_type = errors.types[errors.rows] == _NUMBER[name]
    assigned = errors.assigned[errors.rows]
    # Of several detections that are assigned to one object, the highest-scoring one is fixed.
    fixed = of_type & _first_assigned(assigned, scores)
    labels = labels.copy()
    labels[fixed] = truth.labels[assigned[fixed]]
    keep = ~of_type | fixed
    return _State(labels[keep], scores[keep], (right | fixed)[keep], objects)


def _first_assigned(assigned: Integers, scores: Numbers) -> Flags:
    """Return which detections have the highest score of those assigned to the same object."""
    order = np.lexsort((-scores, assigned))
    firsts = np.ones(order.size, dtype=np.bool_)
    firsts[1:] = np.diff(assigned[order]) != 0
    best = np.zeros(order.size, dtype=np.bool_)
    best[order] = firsts
    return best & (assigned >= 0)
