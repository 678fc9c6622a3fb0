"""COCO JSON: read, check, index."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from detection.config import BAD_BOXES
from detection.data.columns import Integers, Numbers, Records, parse_json, read_bytes

logger = logging.getLogger(__name__)

EDGE_PX = 1.0
"""A box may pass its image's edge by this much, which rounding explains; it is clipped."""
TOP_LEVEL_KEYS = ("images", "annotations", "categories")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of the set."""

    id: int
    file_name: str
    width: int
    """Pixels."""
    height: int
    """Pixels."""


@dataclass(frozen=True, slots=True)
class Category:
    """One class of objects."""

    id: int
    name: str


def require_categories(
    known: Iterable[Category], source: str | Path, annotations: CocoAnnotations
) -> None:
    """Raise a ValueError unless a file declares these categories, ids and names.

    Equal ids alone would let one class be counted as another: converters number the classes that a
    split happens to have.

    Args:
        known: categories of a detector or of another file.
        source: where they come from, for the message.
        annotations: the file.
    """
    ours = {category.id: category.name for category in known}
    theirs = {category.id: category.name for category in annotations.categories}
    if ours == theirs:
        return
    differing = min(id for id in ours.keys() | theirs.keys() if ours.get(id) != theirs.get(id))
    said = [
        repr(names[differing]) if differing in names else "no class" for names in (ours, theirs)
    ]
    raise ValueError(
        f"{source} and {annotations.path} have different categories: id {differing} is {said[0]} "
        f"in the first and {said[1]} in the second"
    )


@dataclass(frozen=True, slots=True, eq=False)
class CocoAnnotations:
    """The boxes of a COCO JSON file, ready to be used by the number of the image.

    Boxes lie in three flat arrays, in the order of the images: 860,001 boxes of COCO train2017 take
    21 MB.
    """

    path: Path
    fingerprint: str
    """SHA-256 of the file."""
    images: tuple[ImageRecord, ...]
    """In ascending order of id."""
    categories: tuple[Category, ...]
    """In ascending order of id; a label is a place in here."""
    boxes: NDArray[np.float32]
    """(N, 4) xyxy in pixels, inside their images, of all images."""
    labels: Integers
    """(N,) 0 to K - 1."""
    crowd: NDArray[np.bool_]
    """(N,) whether a box surrounds a crowd and not one object."""
    offsets: Integers
    """(images + 1,) boxes ``offsets[i]`` to ``offsets[i + 1] - 1`` are those of image i."""

    @classmethod
    def load(cls, path: str | Path, *, bad_boxes: str = "error") -> CocoAnnotations:
        """Read and check a file.

        Args:
            path: COCO JSON with ``images``, ``annotations`` and ``categories``.
            bad_boxes: what to do about boxes without area or outside their image: ``error``, or
                ``drop`` them with a warning.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not COCO JSON or contradicts itself; the message names the
                file, the record and the value.
        """
        if bad_boxes not in BAD_BOXES:
            raise ValueError(f"unknown bad_boxes {bad_boxes!r}; choose from {BAD_BOXES}")
        path = Path(path)
        data, contents = read_coco(path)
        tables = coco_tables(path, data)
        images, categories = _read_images(tables["image"]), _read_categories(tables["category"])
        records = tables["annotation"]
        records.unique("id")
        places = records.places("image_id", np.array([i.id for i in images], dtype=np.int64))
        labels = records.places("category_id", np.array([c.id for c in categories], dtype=np.int64))
        crowd = records.flags("iscrowd")
        boxes, good = _read_boxes(records, images, places, drop=bad_boxes == "drop")
        order = np.flatnonzero(good)[np.argsort(places[good], kind="stable")]
        counts = np.bincount(places[order], minlength=len(images))
        return cls(
            path=path,
            fingerprint=hashlib.sha256(contents).hexdigest(),
            images=images,
            categories=categories,
            boxes=boxes[order],
            labels=labels[order],
            crowd=crowd[order],
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label."""
        return tuple(category.name for category in self.categories)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO's category ids by label."""
        return tuple(category.id for category in self.categories)

    def boxes_of(self, index: int) -> NDArray[np.float32]:
        """Return the boxes of image ``index``, a copy: (N, 4) xyxy in pixels."""
        return self.boxes[self._range(index)].copy()

    def labels_of(self, index: int) -> Integers:
        """Return the labels of the same boxes, a copy: (N,), 0 to K - 1."""
        return self.labels[self._range(index)].copy()

    def crowd_of(self, index: int) -> NDArray[np.bool_]:
        """Return which of the same boxes are crowds, a copy: (N,)."""
        return self.crowd[self._range(index)].copy()

    def _range(self, index: int) -> slice:
        if not 0 <= index < len(self.images):
            raise IndexError(f"image {index} of {len(self.images)} in {self.path}")
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))


class _ImageRow(TypedDict, total=False):
    id: Any
    file_name: Any
    width: Any
    height: Any


class _AnnotationRow(TypedDict, total=False):
    id: Any
    image_id: Any
    category_id: Any
    bbox: Any
    area: Any
    iscrowd: Any


class _CategoryRow(TypedDict, total=False):
    id: Any
    name: Any


class _CocoFile(TypedDict):
    """What boxes need of a COCO JSON; the rest, outlines above all, is most of it."""

    images: list[_ImageRow]
    annotations: list[_AnnotationRow]
    categories: list[_CategoryRow]


def read_coco(path: str | Path) -> tuple[Any, bytes]:
    """Read a COCO JSON, of its records only what boxes need: a fraction of the time and memory.

    A file that is not of that form is read whole, for a message that says what it has.

    Returns:
        What the file holds, unchecked, and its bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or is not JSON.
    """
    contents = read_bytes(path)
    try:
        return msgspec.json.decode(contents, type=_CocoFile), contents
    except (msgspec.DecodeError, RecursionError):
        return parse_json(path, contents), contents


def coco_tables(path: str | Path, data: object) -> Mapping[str, Records]:
    """Return the records of a COCO JSON as ``image``, ``annotation`` and ``category``.

    Args:
        path: where ``data`` comes from, for messages.
        data: the file, as read.

    Raises:
        ValueError: if ``data`` is not an object that has the three lists of objects.
    """
    if not isinstance(data, dict):
        raise ValueError(
            f"{path} is not COCO JSON: it must hold one object with {list(TOP_LEVEL_KEYS)}, "
            f"not a {type(data).__name__}"
        )
    missing = [key for key in TOP_LEVEL_KEYS if key not in data]
    if missing:
        raise ValueError(f"{path} is not COCO JSON: it lacks {missing}; it has {sorted(data)[:8]}")
    return {
        "image": Records(path, "image", data["images"]),
        "annotation": Records(path, "annotation", data["annotations"]),
        "category": Records(path, "category", data["categories"]),
    }


def _read_images(records: Records) -> tuple[ImageRecord, ...]:
    ids, names = records.unique("id"), records.texts("file_name")
    widths, heights = records.integers("width"), records.integers("height")
    empty = (widths <= 0) | (heights <= 0)
    if empty.any():
        at = int(empty.argmax())
        records.refuse(at, f"has size {widths[at]} x {heights[at]}; both sides must be at least 1")
    return tuple(
        ImageRecord(int(ids[i]), names[i], int(widths[i]), int(heights[i])) for i in np.argsort(ids)
    )


def _read_categories(records: Records) -> tuple[Category, ...]:
    ids, names = records.unique("id"), records.distinct_texts("name")
    return tuple(Category(int(ids[i]), names[i]) for i in np.argsort(ids))


def _read_boxes(
    records: Records, images: tuple[ImageRecord, ...], places: Integers, *, drop: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return all boxes as xyxy, clipped to their images, and which of them are good."""
    given = records.boxes("bbox")
    sizes = np.array([(i.width, i.height) for i in images], dtype=np.float64).reshape(-1, 2)
    limits = sizes[places]
    boxes, outside = _clip(given, limits)
    flat = np.any(given[:, 2:] <= 0, axis=1)
    bad = flat | outside | np.any(boxes[:, 2:] <= boxes[:, :2], axis=1)
    if bad.any() and not drop:
        at = int(bad.argmax())
        width, height = limits[at].astype(int)
        fault = (
            "whose width and height must be above 0"
            if flat[at]
            else f"outside its image of {width} x {height} pixels"
        )
        records.refuse(
            at,
            f"has bbox {given[at].tolist()}, {fault}; the setting bad_boxes=drop leaves such out",
        )
    if bad.any():
        logger.warning(
            "%s: left out %d of %d boxes, which have no area or are outside their image",
            records.source,
            int(bad.sum()),
            bad.size,
        )
    return boxes, ~bad


def _clip(given: Numbers, limits: Numbers) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return xywh boxes as xyxy inside their images, and which pass an edge by over ``EDGE_PX``."""
    with np.errstate(over="ignore"):
        corners = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
    inside = np.concatenate([limits, limits], axis=1)
    outside = np.any((corners < -EDGE_PX) | (corners > inside + EDGE_PX), axis=1)
    return np.clip(corners, 0, inside).astype(np.float32), outside
