"""Detections of a whole dataset as columns, and box overlaps with the ground truth.

Images and categories are indices into ascending lists of ids, so that any ids will do. Half a
million detections take 30 MB where a list of dicts takes 400.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from detection.data.coco import GroundTruth
from detection.data.coco_file import require_finite_products
from detection.data.columns import (
    Box,
    Flags,
    Integers,
    Numbers,
    Records,
    Whole,
    convert,
    parse_json,
    read_bytes,
)


class _ResultRow(msgspec.Struct, gc=False):
    """An element of a COCO results file; others may bring outlines."""

    image_id: Whole
    category_id: Whole
    bbox: Box
    score: float
    id: Any = UNSET


@dataclass(frozen=True, slots=True, eq=False)
class DetectionTable:
    """Detections as columns, in the order of their results file."""

    image_indices: Integers
    """(N,) indices into the images of the ground truth."""
    labels: Integers
    """(N,) indices into the categories of the ground truth."""
    boxes: Numbers
    """(N, 4) xywh in pixels."""
    scores: Numbers
    """(N,) finite; higher is more confident."""

    @classmethod
    def from_results(
        cls, results: object, truth: GroundTruth, *, source: str | Path = "results"
    ) -> DetectionTable:
        """Check detections in COCO's results format.

        Args:
            results: a list of dicts with ``image_id``, ``category_id``, ``bbox`` and ``score``;
                NumPy numbers will do.
            truth: the ground truth whose images and categories they refer to.
            source: the file, for messages.

        Raises:
            ValueError: if they are not a list of objects; if one lacks a key, has a box that is not
                four finite numbers or has a negative size, or a score that is not a finite number;
                or is of an image or a category that the ground truth does not have.
        """
        rows = convert(results, list[_ResultRow], source=source, name="detection")
        return cls._check(rows, truth, source)

    @classmethod
    def load(cls, path: str | Path, truth: GroundTruth) -> DetectionTable:
        """Read a file in COCO's results format, written by any program.

        Args:
            path: the JSON file.
            truth: the ground truth whose images and categories it refers to.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not JSON, and as ``from_results`` does.
        """
        contents = read_bytes(path)
        try:
            rows = msgspec.json.decode(contents, type=list[_ResultRow])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return cls.from_results(parse_json(path, contents), truth, source=path)
        return cls._check(rows, truth, path)

    @classmethod
    def _check(
        cls, rows: list[_ResultRow], truth: GroundTruth, source: str | Path
    ) -> DetectionTable:
        records = Records(source, "detection", rows)
        image_indices = records.indices("image_id", truth.image_ids)
        labels = records.indices("category_id", truth.category_ids)
        boxes = records.boxes("bbox")
        require_finite_products(records, boxes)
        negative = np.any(boxes[:, 2:] < 0, axis=1)
        if negative.any():
            index = int(negative.argmax())
            records.refuse(index, f"has bbox {boxes[index].tolist()} of negative width or height")
        return cls(image_indices, labels, boxes, records.numbers("score"))

    @property
    def areas(self) -> Numbers:
        """(N,) square pixels."""
        return self.boxes[:, 2] * self.boxes[:, 3]

    def __len__(self) -> int:
        return self.scores.size

    def take(self, rows: Integers | Flags) -> DetectionTable:
        """Return some rows, in the given order."""
        return DetectionTable(*(getattr(self, f.name)[rows] for f in fields(self)))


def as_detection_table(
    results: Sequence[Mapping[str, Any]] | DetectionTable,
    truth: GroundTruth,
    *,
    source: str | Path = "results",
) -> DetectionTable:
    """Return detections as a table; see ``DetectionTable.from_results``."""
    if isinstance(results, DetectionTable):
        return results
    rows = results if isinstance(results, list) else list(results)
    return DetectionTable.from_results(rows, truth, source=source)


def box_iou(boxes: Numbers, truth: Numbers, crowd: Flags) -> Numbers:
    """Compute the IoU of xywh boxes with COCO's own operations, in COCO's own order.

    Args:
        boxes: (..., 4) xywh of detections.
        truth: (..., 4) xywh of objects; broadcasts with ``boxes``.
        crowd: (...) whether an object is a crowd: the union is then the detection's own area.

    Returns:
        (...) intersection over union, 0 to 1; 0 where both areas are 0.
    """
    left = np.maximum(boxes[..., 0], truth[..., 0])
    top = np.maximum(boxes[..., 1], truth[..., 1])
    right = np.minimum(boxes[..., 2] + boxes[..., 0], truth[..., 2] + truth[..., 0])
    bottom = np.minimum(boxes[..., 3] + boxes[..., 1], truth[..., 3] + truth[..., 1])
    width, height = right - left, bottom - top
    intersection = np.where((width > 0) & (height > 0), width * height, 0.0)
    area = boxes[..., 2] * boxes[..., 3]
    union = np.where(crowd, area, area + truth[..., 2] * truth[..., 3] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


@dataclass(frozen=True, slots=True, eq=False)
class ImageRows:
    """Objects and detections of one image, as rows of the two tables."""

    image: int
    """Index of the image."""
    objects: Integers
    """(G,) objects that are not crowds."""
    crowds: Integers
    detections: Integers
    """(D,) by descending score; equal scores keep their order."""


def iterate_images(
    truth: GroundTruth, detections: DetectionTable, images: Integers, *, max_detections: int
) -> Iterator[ImageRows]:
    """Yield the objects and the highest-scoring detections of each image.

    Args:
        truth: the objects.
        detections: the detections.
        images: indices of the images, in the order to go through.
        max_detections: detections per image; those with the highest scores are taken.
    """
    order = np.argsort(truth.image_indices, kind="stable")
    detection_order = np.lexsort((-detections.scores, detections.image_indices))
    numbers = np.arange(truth.image_ids.size + 1)
    bounds = np.searchsorted(truth.image_indices[order], numbers)
    detection_bounds = np.searchsorted(detections.image_indices[detection_order], numbers)
    for image in images.tolist():
        rows = order[bounds[image] : bounds[image + 1]]
        first, last = detection_bounds[image], detection_bounds[image + 1]
        crowd = truth.crowd[rows]
        yield ImageRows(
            image,
            rows[~crowd],
            rows[crowd],
            detection_order[first : min(last, first + max_detections)],
        )


def in_crowd(
    truth: GroundTruth, detections: DetectionTable, rows: ImageRows, *, iou: float
) -> Flags:
    """Return which detections of an image lie in a crowd of their category, (D,)."""
    if not rows.crowds.size:
        return np.zeros(rows.detections.size, dtype=np.bool_)
    boxes = detections.boxes[rows.detections][:, None]
    iou_of_crowds = box_iou(boxes, truth.boxes[rows.crowds], np.array(True))
    same = detections.labels[rows.detections][:, None] == truth.labels[rows.crowds]
    return (same & (iou_of_crowds >= iou)).any(axis=1)


def pairwise_iou(
    truth: GroundTruth, detections: DetectionTable, rows: ImageRows
) -> tuple[Numbers, Flags]:
    """Compare all detections of an image with all of its objects.

    Returns:
        (D, G) IoU, and (D, G) whether the categories are equal.
    """
    # D detections, G objects
    boxes_D1 = detections.boxes[rows.detections][:, None]
    iou_DG = box_iou(boxes_D1, truth.boxes[rows.objects], np.array(False))
    same_DG = detections.labels[rows.detections][:, None] == truth.labels[rows.objects]
    return iou_DG, same_DG
