"""COCO's precision and recall, by the reference or by compiled code; the same numbers either way.

``pycocotools`` is the reference: what papers' figures were computed with. ``faster-coco-eval`` has
matching and accumulation in C++. It is handed one category at a time, with the overlaps of the
whole category computed at once and without an entry for every pair of image and category: its own
preparation takes longer than its computation, and several times the memory.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.config import EVALUATION_BACKENDS
from detection.data.columns import Integers, Numbers
from detection.evaluation.tables import CocoTruth, FoundTable, overlaps

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's."""
RECALLS = np.linspace(0, 1, 101)
"""Where precision is read off."""
MAX_DETECTIONS = (1, 10, 100)
"""Per image and category, best first."""
AREAS = {
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""Square pixels; what is outside counts neither for nor against."""


@dataclass(frozen=True, slots=True, eq=False)
class CocoArrays:
    """What COCO's figures are means of; -1 where there is nothing to find."""

    # T IoU thresholds, R recalls, K categories, A areas, M limits of detections
    precision: Numbers
    """(T, R, K, A), 0 to 1, with the greatest limit."""
    recall: Numbers
    """(T, K, A, M), 0 to 1."""


def compute_arrays(
    truth: CocoTruth, found: FoundTable, *, images: Integers, backend: str
) -> CocoArrays:
    """Compute precision and recall.

    Args:
        truth: the objects.
        found: detections in the same images and categories.
        images: places of the images to evaluate, ascending.
        backend: ``faster-coco-eval`` or ``pycocotools``.

    Raises:
        ValueError: if there is no such backend.
    """
    match backend:
        case "faster-coco-eval":
            return _compiled(truth, found, images)
        case "pycocotools":
            return _reference(truth, found, images)
        case _:
            raise ValueError(f"unknown backend {backend!r}; choose from {EVALUATION_BACKENDS}")


def _reference(truth: CocoTruth, found: FoundTable, images: Integers) -> CocoArrays:
    from pycocotools.cocoeval import COCOeval

    # Ids count from 1: to pycocotools an object with id 0 is one that was never found.
    objects = _as_dicts(truth, iscrowd=truth.crowd.astype(int).tolist())
    detections = _as_dicts(found, score=found.scores.tolist(), iscrowd=[0] * len(found))
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress by print
        evaluation = COCOeval(_indexed(truth, objects), _indexed(truth, detections), "bbox")
        evaluation.params.imgIds = images.tolist()
        evaluation.evaluate()
        evaluation.accumulate()
    if not images.size or not truth.category_ids.size:
        return _empty(truth.category_ids.size)
    return CocoArrays(evaluation.eval["precision"][..., -1], evaluation.eval["recall"])


def _as_dicts(table: CocoTruth | FoundTable, **more: list[Any]) -> list[dict[str, Any]]:
    columns = {
        "id": range(1, table.images.size + 1),
        "image_id": table.images.tolist(),
        "category_id": table.labels.tolist(),
        "bbox": table.boxes.tolist(),
        "area": table.areas.tolist(),
        **more,
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _indexed(truth: CocoTruth, annotations: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": place} for place in range(truth.image_ids.size)],
        "categories": [{"id": place} for place in range(truth.category_ids.size)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _compiled(truth: CocoTruth, found: FoundTable, images: Integers) -> CocoArrays:
    num_categories = truth.category_ids.size
    arrays = _empty(num_categories)
    found = _best_of_each_image(found)
    wanted = np.zeros(truth.image_ids.size, dtype=np.bool_)
    wanted[images] = True
    objects = _rows_by_category(truth, wanted, num_categories)
    detections = _rows_by_category(found, wanted, num_categories)
    for label in range(num_categories):
        mine = objects[label]
        if mine.size == 0:
            continue  # nothing to find
        category = _Category(
            truth.images[mine],
            truth.boxes[mine],
            truth.areas[mine],
            truth.crowd[mine],
            found.take(detections[label]),
        )
        result = category.evaluate()
        arrays.precision[:, :, label] = result["precision"][:, :, 0, :, -1]
        arrays.recall[:, label] = result["recall"][:, 0]
    return arrays


def _empty(num_categories: int) -> CocoArrays:
    thresholds, areas = IOU_THRESHOLDS.size, len(AREAS)
    return CocoArrays(
        np.full((thresholds, RECALLS.size, num_categories, areas), -1.0),
        np.full((thresholds, num_categories, areas, len(MAX_DETECTIONS)), -1.0),
    )


def _best_of_each_image(found: FoundTable) -> FoundTable:
    """Return detections by image and category, best first, as many as COCO looks at.

    Among equal scores the first given stays first.
    """
    order = np.lexsort((-found.scores, found.images, found.labels))
    images, labels = found.images[order], found.labels[order]
    changes = np.flatnonzero((np.diff(images) != 0) | (np.diff(labels) != 0)) + 1
    starts = np.concatenate([np.zeros(min(order.size, 1), dtype=np.int64), changes])
    sizes = np.diff(np.append(starts, order.size))
    rank = np.arange(order.size) - np.repeat(starts, sizes)
    return found.take(order[rank < MAX_DETECTIONS[-1]])


def _rows_by_category(
    table: CocoTruth | FoundTable, wanted: NDArray[np.bool_], num_categories: int
) -> list[Integers]:
    """Return each category's rows in wanted images, by image and else in the order they have."""
    rows = np.lexsort((table.images, table.labels))
    rows = rows[wanted[table.images[rows]]]
    bounds = np.searchsorted(table.labels[rows], np.arange(num_categories + 1))
    return [rows[start:end] for start, end in pairwise(bounds)]


@dataclass(frozen=True, slots=True, eq=False)
class _Category:
    """The objects of one category and the detections of it, both by image."""

    images: Integers
    boxes: Numbers
    areas: Numbers
    crowd: NDArray[np.bool_]
    found: FoundTable

    def evaluate(self) -> dict[str, Any]:
        from faster_coco_eval import faster_eval_api_cpp as compiled

        found = self.found
        slots, slots_found = self._slots()
        names = np.union1d(slots, slots_found)
        where, where_found = np.searchsorted(names, slots), np.searchsorted(names, slots_found)
        truth_set, found_set = compiled.Dataset(), compiled.Dataset()
        for number, (image, area, crowd) in enumerate(
            zip(where.tolist(), self.areas.tolist(), self.crowd.tolist(), strict=True), 1
        ):
            truth_set.append_ref(
                image, 0, {"id": number, "area": area, "iscrowd": crowd, "ignore": crowd}
            )
        for number, (image, area, score) in enumerate(
            zip(where_found.tolist(), found.areas.tolist(), found.scores.tolist(), strict=True), 1
        ):
            found_set.append_ref(image, 0, {"id": number, "area": area, "score": score})
        places = list(range(names.size))
        return compiled.COCOevalEvaluateAccumulate(
            _Parameters(places),
            [[rows] for rows in self._overlaps(where, where_found, names.size)],
            truth_set,
            found_set,
            places,
            [0],
            True,
        )

    def _slots(self) -> tuple[Integers, Integers]:
        """Return ascending numbers that stand for the images of objects and of detections.

        Images without objects that follow one another share a number, as far as the limit of
        detections goes: all that is found there is wrong, which no limit per image and no order
        among them alters. Of the images where a category is found, those are the most.
        """
        known, place = np.unique(self.images, return_inverse=True)
        images = self.found.images
        before = np.searchsorted(known, images)
        at_known = np.isin(images, known)
        in_gap = ~at_known
        step = len(self.found) + 1
        slots_found = np.where(at_known, (2 * before + 1) * step, 2 * before * step)
        gaps = before[in_gap]
        rank = np.arange(gaps.size) - np.searchsorted(gaps, gaps)
        slots_found[in_gap] += rank // MAX_DETECTIONS[-1]
        return (2 * place + 1) * step, slots_found

    def _overlaps(
        self, where: Integers, where_found: Integers, num_images: int
    ) -> list[list[list[float]]]:
        """Return for each image a row per detection with its overlap with each object."""
        numbers = np.arange(num_images + 1)
        bounds, bounds_found = (
            np.searchsorted(where, numbers),
            np.searchsorted(where_found, numbers),
        )
        counts = np.diff(bounds)
        # P pairs of a detection and an object in its image
        per_detection = counts[where_found]
        detection_P = np.repeat(np.arange(len(self.found)), per_detection)
        ends = np.cumsum(per_detection)
        within_P = np.arange(detection_P.size) - np.repeat(ends - per_detection, per_detection)
        object_P = bounds[where_found[detection_P]] + within_P
        values = overlaps(
            self.found.boxes[detection_P], self.boxes[object_P], self.crowd[object_P]
        ).tolist()
        result: list[list[list[float]]] = [[] for _ in range(num_images)]
        for image in np.flatnonzero((counts > 0) & (np.diff(bounds_found) > 0)).tolist():
            count, first, last = counts[image], bounds_found[image], bounds_found[image + 1]
            start, end = ends[first] - count, ends[last - 1]
            result[image] = [values[i : i + count] for i in range(start, end, count)]
        return result


class _Parameters:
    """COCO's settings as the compiled code asks for them."""

    recThrs, iouThrs = RECALLS.tolist(), IOU_THRESHOLDS.tolist()  # noqa: N815
    maxDets, areaRng = list(MAX_DETECTIONS), [list(area) for area in AREAS.values()]  # noqa: N815
    useCats, catIds = 1, (0,)  # noqa: N815

    def __init__(self, images: list[int]) -> None:
        self.imgIds = images
