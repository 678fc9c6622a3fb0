"""Truth and detections of a whole data set as columns, for everything that compares the two.

A row per object or detection; images and categories are places in ascending lists of ids, so that
any ids will do. Half a million detections take 30 MB where a list of dicts takes 400.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from detection.data.coco import coco_tables, read_coco
from detection.data.columns import Integers, Numbers, Records, parse_json, read_bytes

Flags = NDArray[np.bool_]
MAX_COORDINATE = 1e9
"""Boxes reach no further, in pixels; products of larger numbers would not be finite."""


@dataclass(frozen=True, slots=True, eq=False)
class CocoTruth:
    """The objects of a COCO JSON, in the order of the file.

    They are taken as they stand there, so that the figures are those of anybody else's evaluation
    on it. An area that is missing is the box's.
    """

    path: Path
    image_ids: Integers
    """(I,) ascending."""
    image_names: tuple[str, ...]
    """(I,) file names; the id where there is none."""
    category_ids: Integers
    """(K,) ascending."""
    class_names: tuple[str, ...]
    """(K,) of the categories."""
    images: Integers
    """(N,) 0 to I - 1."""
    labels: Integers
    """(N,) 0 to K - 1."""
    boxes: Numbers
    """(N, 4) xywh in pixels."""
    areas: Numbers
    """(N,) square pixels."""
    crowd: Flags
    """(N,) whether a box surrounds a crowd and not one object."""

    @classmethod
    def load(cls, path: str | Path) -> CocoTruth:
        """Read a file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not COCO JSON or contradicts itself; the message names the
                file, the record and the value.
        """
        data, _ = read_coco(path)
        return cls.read(path, data)

    @classmethod
    def read(cls, path: str | Path, data: object) -> CocoTruth:
        """Take what a file holds; see ``load``."""
        tables = coco_tables(path, data)
        image_ids, categories = tables["image"].unique("id"), tables["category"]
        category_ids, names = categories.unique("id"), categories.distinct_texts("name")
        image_order, category_order = np.argsort(image_ids), np.argsort(category_ids)
        records = tables["annotation"]
        boxes = _boxes(records)
        image_rows = tables["image"].rows
        return cls(
            path=Path(path),
            image_ids=image_ids[image_order],
            image_names=tuple(
                _printable(image_rows[i].get("file_name") or image_ids[i]) for i in image_order
            ),
            category_ids=category_ids[category_order],
            class_names=tuple(names[i] for i in category_order),
            images=records.places("image_id", image_ids[image_order]),
            labels=records.places("category_id", category_ids[category_order]),
            boxes=boxes,
            areas=records.numbers("area", otherwise=boxes[:, 2] * boxes[:, 3]),
            crowd=records.flags("iscrowd"),
        )

    def places_of(self, image_ids: Sequence[int] | None) -> Integers:
        """Return the places of images, ascending; of all for None.

        Raises:
            ValueError: if one of the images is not in the file.
        """
        if image_ids is None:
            return np.arange(self.image_ids.size)
        wanted = np.unique(np.array(image_ids, dtype=np.int64))
        missing = np.setdiff1d(wanted, self.image_ids)
        if missing.size:
            raise ValueError(f"{self.path} has no image with id {missing[0]}")
        return np.searchsorted(self.image_ids, wanted)


class _ResultRow(TypedDict, total=False):
    """What is read of a detection; others may bring outlines."""

    id: Any
    image_id: Any
    category_id: Any
    bbox: Any
    score: Any


@dataclass(frozen=True, slots=True, eq=False)
class FoundTable:
    """Detections, in the order in which they were given."""

    images: Integers
    """(N,) places in the truth's images."""
    labels: Integers
    """(N,) places in the truth's categories."""
    boxes: Numbers
    """(N, 4) xywh in pixels."""
    scores: Numbers
    """(N,) finite; the higher, the surer."""

    @classmethod
    def read(
        cls,
        results: object,
        *,
        image_ids: Integers,
        category_ids: Integers,
        source: str | Path = "results",
    ) -> FoundTable:
        """Take detections in COCO's results format.

        Args:
            results: what a results file holds.
            image_ids: (I,) those of the truth, ascending.
            category_ids: (K,) likewise.
            source: the file, for messages.

        Raises:
            ValueError: if they are not a list of objects; if one lacks a key, has a box that is not
                four finite numbers or has a negative size, or a score that is not a finite number;
                or is of an image or a category that the truth does not have.
        """
        records = Records(source, "detection", results)
        images = records.places("image_id", image_ids)
        labels = records.places("category_id", category_ids)
        boxes = _boxes(records)
        negative = np.any(boxes[:, 2:] < 0, axis=1)
        if negative.any():
            at = int(negative.argmax())
            records.refuse(at, f"has bbox {records.rows[at]['bbox']} of negative width or height")
        return cls(images, labels, boxes, records.numbers("score"))

    @classmethod
    def load(cls, path: str | Path, *, truth: CocoTruth) -> FoundTable:
        """Read a results file of any program.

        Args:
            path: JSON in COCO's results format.
            truth: what it will be compared with.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not JSON, and as ``read`` does.
        """
        contents = read_bytes(path)
        try:
            results = msgspec.json.decode(contents, type=list[_ResultRow])
        except (msgspec.DecodeError, RecursionError):
            results = parse_json(path, contents)  # for a message that says what it has
        return cls.read(
            results, image_ids=truth.image_ids, category_ids=truth.category_ids, source=path
        )

    @property
    def areas(self) -> Numbers:
        """(N,) square pixels."""
        return self.boxes[:, 2] * self.boxes[:, 3]

    def __len__(self) -> int:
        return self.scores.size

    def take(self, rows: Integers | Flags) -> FoundTable:
        """Return some rows, in the order asked for."""
        return FoundTable(*(getattr(self, f.name)[rows] for f in fields(self)))


def found_of(
    truth: CocoTruth, results: Sequence[Mapping[str, Any]] | FoundTable, source: str | Path
) -> FoundTable:
    """Return detections as a table that fits the truth; see ``FoundTable.read``."""
    if isinstance(results, FoundTable):
        return results
    return FoundTable.read(
        results if isinstance(results, list) else list(results),
        image_ids=truth.image_ids,
        category_ids=truth.category_ids,
        source=source,
    )


def overlaps(found: Numbers, truth: Numbers, crowd: Flags) -> Numbers:
    """Return how far boxes overlap, as COCO has it, step by step in the order of its own code.

    Args:
        found: (..., 4) xywh of detections.
        truth: (..., 4) of objects, which goes with ``found`` by numpy's broadcasting.
        crowd: (...) where an object is a crowd, the detection's own area takes the union's place.

    Returns:
        (...) intersection over union, 0 to 1.
    """
    left = np.maximum(found[..., 0], truth[..., 0])
    top = np.maximum(found[..., 1], truth[..., 1])
    right = np.minimum(found[..., 2] + found[..., 0], truth[..., 2] + truth[..., 0])
    bottom = np.minimum(found[..., 3] + found[..., 1], truth[..., 3] + truth[..., 1])
    width, height = right - left, bottom - top
    shared = np.where((width > 0) & (height > 0), width * height, 0.0)
    area = found[..., 2] * found[..., 3]
    union = np.where(crowd, area, area + truth[..., 2] * truth[..., 3] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _printable(name: object) -> str:
    """Return any value as text that can be written; nothing but messages depends on it."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def _boxes(records: Records) -> Numbers:
    boxes = records.boxes("bbox")
    far = np.any(np.abs(boxes) > MAX_COORDINATE, axis=1)
    if far.any():
        at = int(far.argmax())
        records.refuse(
            at, f"has bbox {boxes[at].tolist()}; no number may pass {MAX_COORDINATE:.0e} pixels"
        )
    return boxes


@dataclass(frozen=True, slots=True, eq=False)
class ImageRows:
    """What is in one image and what was found there, as rows of the two tables."""

    image: int
    """Its place."""
    objects: Integers
    """Those that are no crowds."""
    crowds: Integers
    found: Integers
    """Best first; among equal scores the first given is first."""


def each_image(
    truth: CocoTruth, found: FoundTable, places: Integers, *, max_found: int
) -> Iterator[ImageRows]:
    """Go through images, each with its objects and its best detections.

    Args:
        truth: the objects.
        found: the detections.
        places: of the images, in the order to go through.
        max_found: detections per image; the best are taken.
    """
    order = np.argsort(truth.images, kind="stable")
    order_found = np.lexsort((-found.scores, found.images))
    numbers = np.arange(truth.image_ids.size + 1)
    bounds = np.searchsorted(truth.images[order], numbers)
    bounds_found = np.searchsorted(found.images[order_found], numbers)
    for image in places.tolist():
        rows = order[bounds[image] : bounds[image + 1]]
        first, last = bounds_found[image], bounds_found[image + 1]
        crowd = truth.crowd[rows]
        yield ImageRows(
            image, rows[~crowd], rows[crowd], order_found[first : min(last, first + max_found)]
        )


def in_crowd(truth: CocoTruth, found: FoundTable, rows: ImageRows, *, iou: float) -> Flags:
    """Return which of an image's detections lie in a crowd of their category, (D,)."""
    if not rows.crowds.size:
        return np.zeros(rows.found.size, dtype=np.bool_)
    overlap = overlaps(found.boxes[rows.found][:, None], truth.boxes[rows.crowds], np.array(True))
    same = found.labels[rows.found][:, None] == truth.labels[rows.crowds]
    return (same & (overlap >= iou)).any(axis=1)
