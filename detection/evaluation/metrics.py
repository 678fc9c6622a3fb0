"""COCO box metrics, equal to those of ``pycocotools`` with either backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from detection.config import EVALUATION_BACKENDS
from detection.data.coco import GroundTruth
from detection.data.columns import Numbers
from detection.evaluation.coco_eval import (
    AREAS,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    CocoArrays,
    compute_arrays,
)
from detection.evaluation.tables import DetectionTable, as_detection_table
from detection.structures import Detections


@dataclass(frozen=True, slots=True)
class CocoMetrics:
    """COCO box metrics in percent, 0 to 100; NaN where one is undefined."""

    ap: float
    """Mean over IoU 0.50:0.05:0.95, at most 100 detections per image."""
    ap50: float
    """At IoU 0.50."""
    ap75: float
    """At IoU 0.75."""
    ap_small: float
    """Objects below 32 x 32 px in the original image."""
    ap_medium: float
    """Objects from 32 x 32 to 96 x 96 px."""
    ap_large: float
    """Objects above 96 x 96 px."""
    ar_1: float
    """Mean recall over the same IoUs, with 1 detection per image."""
    ar_10: float
    """With 10 detections per image."""
    ar_100: float
    """With 100 detections per image."""
    ar_small: float
    """With 100 detections per image, of objects as in ``ap_small``."""
    ar_medium: float
    ar_large: float
    per_class: Mapping[str, float] = field(default_factory=dict)
    """Name of a category -> its AP."""
    per_class_ap50: Mapping[str, float] = field(default_factory=dict)
    """Name of a category -> its AP50."""
    per_class_ar: Mapping[str, float] = field(default_factory=dict)
    """Name of a category -> its recall with 100 detections per image."""
    per_iou: Mapping[str, float] = field(default_factory=dict)
    """IoU as 0.50, 0.55, ... 0.95 -> AP there."""

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as JSON types; None stands for NaN."""
        values = {name: _none_if_nan(getattr(self, name)) for name in FIGURES}
        tables = {
            table: {name: _none_if_nan(value) for name, value in getattr(self, table).items()}
            for table in TABLES
        }
        return values | tables

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CocoMetrics:
        """Read what ``to_dict`` returned from a dict that may hold more.

        Older files have no table but ``per_class``.
        """
        values: dict[str, Any] = {name: _nan_if_none(data[name]) for name in FIGURES}
        for table in TABLES:
            rows = data.get(table, {}).items()
            values[table] = {name: _nan_if_none(value) for name, value in rows}
        return cls(**values)


TABLES = ("per_class", "per_class_ap50", "per_class_ar", "per_iou")
FIGURES = tuple(f.name for f in fields(CocoMetrics) if f.name not in TABLES)
"""The twelve figures, in the order of COCO's own summary."""


def compute_coco_metrics(
    truth: str | Path | GroundTruth,
    results: Sequence[Mapping[str, Any]] | DetectionTable,
    *,
    image_ids: Sequence[int] | None = None,
    backend: str = EVALUATION_BACKENDS[0],
) -> CocoMetrics:
    """Compute COCO's metrics of detections.

    Args:
        truth: the ground truth, or a COCO JSON to read.
        results: detections in COCO's results format, or as a table.
        image_ids: evaluate these images only.
        backend: ``hotcoco`` or ``pycocotools``; the metrics are equal.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not COCO JSON or lacks one of ``image_ids``; as
            ``DetectionTable.from_results`` does; or if there is no such backend.
    """
    if not isinstance(truth, GroundTruth):
        truth = GroundTruth.load(truth)
    detections = as_detection_table(results, truth)
    images = truth.indices_of(image_ids)
    return summarize(compute_arrays(truth, detections, images=images, backend=backend), truth)


def summarize(arrays: CocoArrays, truth: GroundTruth) -> CocoMetrics:
    """Compute COCO's means of precision and recall."""
    # T IoU thresholds, R recalls, K categories: any area, at most 100 detections
    precision_TRK, recall_TK = arrays.precision[..., 0], arrays.recall[..., 0, -1]
    area_index = {name: index for index, name in enumerate(AREAS)}
    sizes = ("small", "medium", "large")
    figures = {
        "ap": precision_TRK,
        "ap50": precision_TRK[_at_iou(0.5)],
        "ap75": precision_TRK[_at_iou(0.75)],
        **{f"ap_{size}": arrays.precision[..., area_index[size]] for size in sizes},
        **{f"ar_{n}": arrays.recall[..., 0, index] for index, n in enumerate(MAX_DETECTIONS)},
        **{f"ar_{size}": arrays.recall[..., area_index[size], -1] for size in sizes},
    }
    tables = {
        "per_class": (truth.class_names, np.moveaxis(precision_TRK, 2, 0)),
        "per_class_ap50": (truth.class_names, precision_TRK[_at_iou(0.5)].T),
        "per_class_ar": (truth.class_names, recall_TK.T),
        "per_iou": ([f"{iou:.2f}" for iou in IOU_THRESHOLDS], precision_TRK),
    }
    values: dict[str, Any] = {name: _percent_mean(array) for name, array in figures.items()}
    for table, (names, rows) in tables.items():
        values[table] = dict(zip(names, map(_percent_mean, rows), strict=True))
    return CocoMetrics(**values)


def to_coco_results(
    image_ids: Sequence[int], detections: Sequence[Detections], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return detections in COCO's results format.

    Args:
        image_ids: COCO's id of each image.
        detections: detections of each image, boxes in the pixels of the original image.
        category_ids: COCO's category ids by label.

    Returns:
        ``image_id``, ``category_id``, ``bbox`` (xywh in pixels, to 1e-3) and ``score`` (to 1e-6) of
        each detection.
    """
    results = []
    for image_id, of_image in zip(image_ids, detections, strict=True):
        boxes = of_image.boxes.detach().cpu().double()
        xywh = boxes.clone()
        xywh[:, 2:] -= boxes[:, :2]
        for box, score, label in zip(
            xywh.tolist(), of_image.scores.tolist(), of_image.labels.tolist(), strict=True
        ):
            results.append(
                {
                    "image_id": int(image_id),
                    "category_id": int(category_ids[label]),
                    "bbox": [round(value, 3) for value in box],
                    "score": round(score, 6),
                }
            )
    return results


def _at_iou(threshold: float) -> int:
    return int(np.abs(IOU_THRESHOLDS - threshold).argmin())


def _percent_mean(values: Numbers) -> float:
    """Return the mean in percent without the values of -1, by which COCO marks undefined ones."""
    valid = values[values > -1]
    return 100 * float(valid.mean()) if valid.size else math.nan


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan_if_none(value: float | None) -> float:
    return math.nan if value is None else float(value)
