"""COCO precision and recall arrays, by one of two backends with equal numbers.

``hotcoco`` (Rust) is the default; ``pycocotools``, which the figures of papers were computed with,
is the reference.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from backbone.config import require_choice
from detection.config import EVALUATION_BACKENDS, RENAMED_BACKENDS
from detection.data.coco import GroundTruth
from detection.data.columns import Integers, Numbers
from detection.evaluation.tables import DetectionTable

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's."""
RECALLS = np.linspace(0, 1, 101)
"""Recalls at which precision is read."""
MAX_DETECTIONS = (1, 10, 100)
"""Limits of detections per image and category, by descending score."""
AREAS = {
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""Range of areas in square pixels; objects and detections outside are ignored."""


@dataclass(frozen=True, slots=True, eq=False)
class CocoArrays:
    """Precision and recall that COCO's metrics are means of; -1 where there are no objects."""

    # T IoU thresholds, R recalls, K categories, A areas, M limits of detections
    precision: Numbers
    """(T, R, K, A), 0 to 1, at the greatest limit."""
    recall: Numbers
    """(T, K, A, M), 0 to 1."""


def compute_arrays(
    truth: GroundTruth, detections: DetectionTable, *, images: Integers, backend: str
) -> CocoArrays:
    """Compute precision and recall.

    Args:
        truth: the objects.
        detections: detections in the same images and categories.
        images: indices of the images to evaluate, ascending.
        backend: ``hotcoco`` or ``pycocotools``.

    Raises:
        ValueError: if there is no such backend.
    """
    require_choice("backend", backend, EVALUATION_BACKENDS, renamed=RENAMED_BACKENDS)
    if not images.size or not truth.category_ids.size:
        return _empty(truth.category_ids.size)
    evaluate = _evaluate_hotcoco if backend == "hotcoco" else _evaluate_pycocotools
    result = evaluate(truth, detections, images)
    return CocoArrays(np.asarray(result["precision"])[..., -1], np.asarray(result["recall"]))


def _empty(num_categories: int) -> CocoArrays:
    thresholds, areas = IOU_THRESHOLDS.size, len(AREAS)
    return CocoArrays(
        np.full((thresholds, RECALLS.size, num_categories, areas), -1.0),
        np.full((thresholds, num_categories, areas, len(MAX_DETECTIONS)), -1.0),
    )


# Ids are indices + 1: to pycocotools an object with id 0 is one that was never matched.


def _evaluate_hotcoco(
    truth: GroundTruth, detections: DetectionTable, images: Integers
) -> dict[str, Any]:
    import hotcoco

    objects = hotcoco.COCO.from_arrays(
        _ids(truth.image_ids.size),
        [{**row, "name": str(row["id"])} for row in _ids(truth.category_ids.size)],
        truth.image_indices + 1,
        truth.labels + 1,
        truth.boxes,
        ids=np.arange(1, truth.labels.size + 1),
        area=truth.areas,
        iscrowd=truth.crowd.astype(np.int64),
    )
    columns = detections.image_indices + 1, detections.boxes, detections.scores
    detected = objects.load_res(np.column_stack([*columns, detections.labels + 1]))
    evaluation = hotcoco.COCOeval(objects, detected, "bbox")
    evaluation.params.img_ids = (images + 1).tolist()
    evaluation.params.max_dets = list(MAX_DETECTIONS)
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval is not None
    return evaluation.eval


def _evaluate_pycocotools(
    truth: GroundTruth, detections: DetectionTable, images: Integers
) -> dict[str, Any]:
    from pycocotools.cocoeval import COCOeval

    objects = _as_dicts(truth, iscrowd=truth.crowd.astype(int).tolist())
    detected = _as_dicts(
        detections, score=detections.scores.tolist(), iscrowd=[0] * len(detections)
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation = COCOeval(_indexed(truth, objects), _indexed(truth, detected), "bbox")
        evaluation.params.imgIds = (images + 1).tolist()
        evaluation.params.maxDets = list(MAX_DETECTIONS)
        evaluation.evaluate()
        evaluation.accumulate()
    result: dict[str, Any] = evaluation.eval
    return result


def _ids(count: int) -> list[dict[str, Any]]:
    return [{"id": number} for number in range(1, count + 1)]


def _as_dicts(table: GroundTruth | DetectionTable, **more: list[Any]) -> list[dict[str, Any]]:
    columns = {
        "id": range(1, table.labels.size + 1),
        "image_id": (table.image_indices + 1).tolist(),
        "category_id": (table.labels + 1).tolist(),
        "bbox": table.boxes.tolist(),
        "area": table.areas.tolist(),
        **more,
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _indexed(truth: GroundTruth, annotations: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": _ids(truth.image_ids.size),
        "categories": _ids(truth.category_ids.size),
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
