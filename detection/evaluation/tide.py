"""Why detections are wrong, and what mending each kind of error would bring.

The six kinds, their order of precedence and their mending are those of TIDE (Bolya, Foley, Hays,
Hoffman: TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020, section 2). In
what counts at all this module keeps to COCO's AP: categories without objects do not, and what lies
in a crowd of its category is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from detection.data.columns import Integers, Numbers
from detection.evaluation.coco_eval import RECALLS
from detection.evaluation.tables import (
    CocoTruth,
    Flags,
    FoundTable,
    ImageRows,
    each_image,
    in_crowd,
    overlaps,
)

KINDS = {
    "classification": "overlaps an object of another category by at least 0.5",
    "localization": "overlaps an object of its category, by 0.1 to 0.5",
    "both": "overlaps an object of another category only, by 0.1 to 0.5",
    "duplicate": "overlaps an object of its category that a surer detection has taken",
    "background": "overlaps no object by 0.1",
    "missed": "an object that no detection found, nor would with its class or its box mended",
}
"""Kind -> what it is; all but the last are of detections."""
FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1
MAX_DETECTIONS = 100
"""Per image, best first."""
RIGHT, UNCOUNTED = -1, -2
_NUMBER = {kind: number for number, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class ErrorKinds:
    """How often each kind of error was made, and what it costs."""

    ap50: float
    """AP in percent at IoU 0.5, of the best 100 detections of each image."""
    num_right: int
    """Detections that found an object."""
    counts: Mapping[str, int]
    """Kind -> number of detections; of objects for ``missed``."""
    gains: Mapping[str, float]
    """Kind -> points of AP50 that mending it alone would bring; never negative. Also
    ``false_positive``, if all wrong detections came last, and ``false_negative``, if all objects
    without a detection were taken away."""
    per_class: Mapping[str, Mapping[str, int]]
    """Category -> counts; of a detection its own category, of a missed object the object's."""

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON's types; None stands for NaN."""
        return {
            "ap50": None if self.ap50 != self.ap50 else self.ap50,  # NaN
            "num_right": self.num_right,
            "counts": dict(self.counts),
            "gains": dict(self.gains),
            "per_class": {name: dict(counts) for name, counts in self.per_class.items()},
        }


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """The kind of every detection and what became of every object."""

    kinds: Integers
    """(D,) place in ``KINDS``; -1: right; -2: in a crowd, or beyond the best of its image."""
    claimed: Integers
    """(D,) row of the object that mending the class or the place would find; -1: none."""
    found: Flags
    """(N,) objects that a detection found."""
    missed: Flags
    """(N,) objects that nothing found, and nothing would after such mending."""
    rows: Integers
    """Detections that count, by image and best first."""


def find_errors(truth: CocoTruth, found: FoundTable, *, images: Integers) -> Errors:
    """Say of every detection whether it is right, and if not, what is wrong with it.

    Args:
        truth: the objects.
        found: the detections.
        images: places of the images to look at.
    """
    kinds = np.full(len(found), UNCOUNTED)
    claimed = np.full(len(found), -1)
    taken = np.zeros(truth.images.size, dtype=np.bool_)
    order = []
    for rows in each_image(truth, found, images, max_found=MAX_DETECTIONS):
        if not rows.found.size:
            continue
        kinds[rows.found], claimed[rows.found] = _judge(truth, found, rows, taken)
        order.append(rows.found)
    rows_all = np.concatenate(order) if order else np.zeros(0, dtype=np.int64)
    missed = ~taken & ~truth.crowd & np.isin(truth.images, images)
    missed[claimed[claimed >= 0]] = False
    return Errors(kinds, claimed, taken, missed, rows_all[kinds[rows_all] != UNCOUNTED])


def _judge(
    truth: CocoTruth, found: FoundTable, rows: ImageRows, taken: Flags
) -> tuple[Integers, Integers]:
    """Return kinds and claims of an image's detections; mark objects that are found."""
    # D detections, G objects
    iou_DG = overlaps(found.boxes[rows.found][:, None], truth.boxes[rows.objects], np.array(False))
    same_DG = found.labels[rows.found][:, None] == truth.labels[rows.objects]
    own_DG, other_DG = np.where(same_DG, iou_DG, 0.0), np.where(same_DG, 0.0, iou_DG)
    right = _match(own_DG, rows, taken)
    uncounted = ~right & in_crowd(truth, found, rows, iou=FOREGROUND_IOU)
    # Without an object nothing overlaps.
    none = np.zeros((rows.found.size, 1))
    own, other = (np.hstack([iou, none]).max(axis=1) for iou in (own_DG, other_DG))
    cases = {
        RIGHT: right,
        UNCOUNTED: uncounted,
        _NUMBER["localization"]: (own >= BACKGROUND_IOU) & (own < FOREGROUND_IOU),
        _NUMBER["classification"]: other >= FOREGROUND_IOU,
        _NUMBER["duplicate"]: own >= FOREGROUND_IOU,
        _NUMBER["both"]: other >= BACKGROUND_IOU,
    }
    kinds = np.select(list(cases.values()), list(cases), default=_NUMBER["background"])
    claims = np.full(rows.found.size, -1)
    for kind, iou_of_kind_DG in (("localization", own_DG), ("classification", other_DG)):
        claimants = np.flatnonzero(kinds == _NUMBER[kind])
        if claimants.size:
            wanted = rows.objects[iou_of_kind_DG[claimants].argmax(axis=1)]
            claims[claimants] = np.where(taken[wanted], -1, wanted)
    return kinds, claims


def _match(own_DG: Numbers, rows: ImageRows, taken: Flags) -> Flags:  # noqa: N803
    """Give each detection, best first, the free object of its category that it overlaps most."""
    right = np.zeros(rows.found.size, dtype=np.bool_)
    free = own_DG.copy()
    for detection in np.flatnonzero((own_DG >= FOREGROUND_IOU).any(axis=1)):
        backwards = free[detection, ::-1]  # of equal overlaps COCO takes the last
        best = backwards.size - 1 - int(backwards.argmax())
        if free[detection, best] >= FOREGROUND_IOU:
            right[detection] = True
            free[:, best] = 0
            taken[rows.objects[best]] = True
    return right


def measure_errors(truth: CocoTruth, found: FoundTable, *, images: Integers) -> ErrorKinds:
    """Count each kind of error and compute what mending it alone would bring.

    Args:
        truth: the objects.
        found: the detections.
        images: places of the images to look at.
    """
    errors = find_errors(truth, found, images=images)
    rows = errors.rows
    kinds, labels = errors.kinds[rows], found.labels[rows]
    num_classes = truth.category_ids.size
    counted = ~truth.crowd & np.isin(truth.images, images)
    state = _State(
        labels=labels,
        scores=found.scores[rows],
        right=kinds == RIGHT,
        objects=np.bincount(truth.labels[counted], minlength=num_classes),
    )
    ap50 = state.ap(state.objects > 0)
    mended = {
        kind: _mend(kind, state, errors, truth).ap(state.objects > 0)
        for kind in (*KINDS, "false_positive", "false_negative")
    }
    counts = np.zeros((len(KINDS), num_classes), dtype=np.int64)
    np.add.at(counts, (kinds[kinds >= 0], labels[kinds >= 0]), 1)
    counts[_NUMBER["missed"]] = np.bincount(truth.labels[errors.missed], minlength=num_classes)
    return ErrorKinds(
        ap50=ap50,
        num_right=int(state.right.sum()),
        counts={kind: int(counts[number].sum()) for kind, number in _NUMBER.items()},
        # Fewer objects move the 101 recalls at which precision is read, which may cost a little.
        gains={kind: max(ap - ap50, 0.0) if ap == ap else 0.0 for kind, ap in mended.items()},  # noqa: PLR0124
        per_class={
            name: {kind: int(counts[number, label]) for kind, number in _NUMBER.items()}
            for label, name in enumerate(truth.class_names)
        },
    )


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What AP is computed from."""

    labels: Integers
    """(D,) of detections."""
    scores: Numbers
    right: Flags
    objects: Integers
    """(K,) number to be found."""

    def ap(self, classes: Flags) -> float:
        """Return the mean AP in percent over some classes, NaN over none.

        A class with nothing to find and no detection is left out; if all are, nothing is wrong.
        """
        order = np.lexsort((-self.scores, self.labels))
        bounds = np.searchsorted(self.labels[order], np.arange(classes.size + 1))
        values = []
        for label in np.flatnonzero(classes):
            right = self.right[order[bounds[label] : bounds[label + 1]]]
            if self.objects[label] or right.size:
                values.append(_average_precision(right, int(self.objects[label])))
        if not values:
            return 100.0 if classes.any() else float("nan")
        return 100 * float(np.mean(values))


def _average_precision(right: Flags, num_objects: int) -> float:
    """Return COCO's AP, precision at 101 recalls, of detections from best to worst."""
    if not num_objects or not right.size:
        return 0.0
    found = np.cumsum(right)
    precision = found / np.arange(1, right.size + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(found / num_objects, RECALLS)].mean())


def _mend(kind: str, state: _State, errors: Errors, truth: CocoTruth) -> _State:
    """Return the state without one kind of error."""
    labels, scores, right, objects = state.labels, state.scores, state.right, state.objects
    match kind:
        case "false_positive":
            return _State(labels, right.astype(np.float64), right, objects)
        case "false_negative":
            found = np.bincount(truth.labels[errors.found], minlength=objects.size)
            return _State(labels, scores, right, found)
        case "missed":
            missed = np.bincount(truth.labels[errors.missed], minlength=objects.size)
            return _State(labels, scores, right, objects - missed)
    of_kind = errors.kinds[errors.rows] == _NUMBER[kind]
    claimed = errors.claimed[errors.rows]
    # An object needs only one; of the detections that claim it, the surest is mended.
    winners = of_kind & _first_claims(claimed, scores)
    labels = labels.copy()
    labels[winners] = truth.labels[claimed[winners]]
    keep = ~of_kind | winners
    return _State(labels[keep], scores[keep], (right | winners)[keep], objects)


def _first_claims(claimed: Integers, scores: Numbers) -> Flags:
    """Return which detections are the surest of those that claim the same object."""
    order = np.lexsort((-scores, claimed))
    firsts = np.ones(order.size, dtype=np.bool_)
    firsts[1:] = np.diff(claimed[order]) != 0
    best = np.zeros(order.size, dtype=np.bool_)
    best[order] = firsts
    return best & (claimed >= 0)
