"""COCO's box metrics, as ``pycocotools`` computes them."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.annotations import CocoAnnotations, coco_tables
from detection.detector import Detections
from detection.records import Records, read_json


@dataclass(frozen=True, slots=True)
class CocoMetrics:
    """COCO box metrics in percent, 0 to 100; NaN where COCO could not compute one."""

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
    ar_medium: float
    ar_large: float
    per_class: Mapping[str, float] = field(default_factory=dict)
    """Name of a category -> its AP."""

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as JSON's types; None stands for NaN."""
        values = {name: _none_if_nan(getattr(self, name)) for name in FIGURES}
        per_class = {name: _none_if_nan(ap) for name, ap in self.per_class.items()}
        return values | {"per_class": per_class}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CocoMetrics:
        """Return the metrics that ``to_dict`` gave, from a dict that may hold more."""
        values = {name: _nan_if_none(data[name]) for name in FIGURES}
        per_class = {name: _nan_if_none(ap) for name, ap in data["per_class"].items()}
        return cls(**values, per_class=per_class)


FIGURES = tuple(f.name for f in fields(CocoMetrics) if f.name != "per_class")
"""The twelve figures, in the order of COCO's own summary."""


@dataclass(frozen=True, slots=True, eq=False)
class CocoTruth:
    """A COCO JSON as ``pycocotools`` takes it, read once for any number of evaluations.

    The annotations are taken as they stand in the file, so that the figures are those of anybody
    else's evaluation on it. An area that is missing is the box's.
    """

    path: Path
    index: COCO

    @classmethod
    def load(cls, path: str | Path) -> CocoTruth:
        """Read a file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not COCO JSON.
        """
        return cls(Path(path), _indexed(_read_truth(path)))


def evaluate_coco(
    truth: str | Path | CocoTruth,
    results: Sequence[Mapping[str, Any]],
    *,
    image_ids: Sequence[int] | None = None,
) -> CocoMetrics:
    """Compute COCO's metrics of detections.

    Args:
        truth: COCO JSON with the truth, to be read now or read already.
        results: detections in COCO's results format; see ``check_results``.
        image_ids: evaluate these images only.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not COCO JSON or lacks one of ``image_ids``.
    """
    if not isinstance(truth, CocoTruth):
        truth = CocoTruth.load(truth)
    dataset = truth.index.dataset
    known = {image["id"] for image in dataset["images"]}
    chosen = known if image_ids is None else set(image_ids)
    if not chosen <= known:
        raise ValueError(f"{truth.path} has no image with id {min(chosen - known)}")
    found = {**dataset, "annotations": [_as_annotation(i + 1, r) for i, r in enumerate(results)]}
    index = _indexed(found)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth.index, index, "bbox")
        evaluation.params.imgIds = sorted(chosen)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    # IoU thresholds, recalls, K classes, areas (all first), detections per image (100 last)
    precision_k = evaluation.eval["precision"][:, :, :, 0, -1].transpose(2, 0, 1)
    per_class = {
        names[category]: _percent_mean(precision)
        for category, precision in zip(evaluation.params.catIds, precision_k, strict=True)
    }
    figures = dict(zip(FIGURES, map(_percent, evaluation.stats), strict=True))
    return CocoMetrics(**figures, per_class=per_class)


def to_coco_results(
    image_ids: Sequence[int], detections: Sequence[Detections], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return detections in COCO's results format.

    Args:
        image_ids: COCO's id of each image.
        detections: of each image, boxes in the pixels of the original image.
        category_ids: COCO's category ids by label.

    Returns:
        ``image_id``, ``category_id``, ``bbox`` (xywh in pixels, to 1e-3) and ``score`` (to 1e-6) of
        each detection.
    """
    results = []
    for image_id, found in zip(image_ids, detections, strict=True):
        boxes = found.boxes.detach().cpu().double()
        xywh = boxes.clone()
        xywh[:, 2:] -= boxes[:, :2]
        for box, score, label in zip(
            xywh.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
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


def read_results(path: str | Path, annotations: CocoAnnotations) -> list[dict[str, Any]]:
    """Read a results file of any program.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON, and as ``check_results`` does.
    """
    results, _ = read_json(path)
    return check_results(results, annotations, source=path)


def check_results(
    results: object, annotations: CocoAnnotations, *, source: str | Path = "results"
) -> list[dict[str, Any]]:
    """Return results, if they are in COCO's format and fit the annotations.

    Args:
        results: what a results file holds.
        annotations: the truth they will be compared with.
        source: the file, for messages.

    Raises:
        ValueError: if they are not a list of objects; if one lacks a key, has a box that is not
            four finite numbers or has a negative size, or a score that is not a finite number; or
            is of an image or a category that the annotations do not have.
    """
    records = Records(source, "detection", results)
    image_ids = np.array([image.id for image in annotations.images], dtype=np.int64)
    records.places("image_id", image_ids)
    records.places("category_id", np.array(annotations.category_ids, dtype=np.int64))
    negative = np.any(records.boxes("bbox")[:, 2:] < 0, axis=1)
    if negative.any():
        at = int(negative.argmax())
        records.refuse(at, f"has bbox {records.rows[at]['bbox']} of negative width or height")
    records.numbers("score")
    return records.rows


def _read_truth(path: str | Path) -> dict[str, Any]:
    """Return a COCO JSON with what ``pycocotools`` needs beyond what COCO JSON must have."""
    data, _ = read_json(path)
    tables = coco_tables(path, data)
    for kind, keys in {"image": ["id"], "category": ["id", "name"]}.items():
        for key in keys:
            tables[kind].values(key)
    records = tables["annotation"]
    for key in ("image_id", "category_id"):
        records.values(key)
    areas = np.prod(records.boxes("bbox")[:, 2:], axis=1)
    # To pycocotools an object with id 0 is one that was never found; so ids count from 1 here.
    annotations = [
        {"iscrowd": 0, "area": float(area), **row, "id": i + 1}
        for i, (row, area) in enumerate(zip(records.rows, areas, strict=True))
    ]
    return {
        "images": data["images"],
        "categories": data["categories"],
        "annotations": annotations,
    }


def _as_annotation(number: int, result: Mapping[str, Any]) -> dict[str, Any]:
    box = [float(value) for value in result["bbox"]]
    return {
        "id": number,
        "image_id": result["image_id"],
        "category_id": result["category_id"],
        "bbox": box,
        "score": float(result["score"]),
        "area": box[2] * box[3],
        "iscrowd": 0,
    }


def _indexed(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress by print
        coco.createIndex()
    return coco


def _percent(value: float) -> float:
    """Return a figure of COCO's in percent; -1 is its word for none."""
    return math.nan if value < 0 else 100 * float(value)


def _percent_mean(precision: np.ndarray[Any, Any]) -> float:
    valid = precision[precision > -1]
    return 100 * float(valid.mean()) if valid.size else math.nan


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan_if_none(value: float | None) -> float:
    return math.nan if value is None else float(value)
