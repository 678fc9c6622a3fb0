"""The part of a COCO JSON that boxes need: typed records and checked columns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from detection.data.columns import (
    Box,
    Flag,
    Flags,
    Integers,
    Numbers,
    Records,
    Text,
    Whole,
    convert,
    parse_json,
    read_bytes,
)

MAX_COORDINATE = 1e9
"""Limit of box coordinates in pixels, for scoring; products of larger numbers overflow."""


class ImageRow(msgspec.Struct, gc=False):
    """An element of ``images``; scoring needs the id alone."""

    id: Whole
    file_name: Any = UNSET
    width: Any = UNSET
    height: Any = UNSET


class AnnotationRow(msgspec.Struct, gc=False):
    """An element of ``annotations``; training needs the id, scoring the area."""

    image_id: Whole
    category_id: Whole
    bbox: Box
    id: Any = UNSET
    area: Any = UNSET
    iscrowd: Flag = 0


class CategoryRow(msgspec.Struct, gc=False):
    """An element of ``categories``."""

    id: Whole
    name: Text


class CocoFile(msgspec.Struct):
    """The members of a COCO JSON that boxes need; outlines, most of a file, are not decoded."""

    images: list[ImageRow]
    annotations: list[AnnotationRow]
    categories: list[CategoryRow]


@dataclass(frozen=True, slots=True, eq=False)
class CocoColumns:
    """Checked columns of a COCO JSON that training and scoring share, and its records."""

    path: Path
    fingerprint: str
    """SHA-256 of the file."""
    images: Records[ImageRow]
    """In ascending order of id."""
    annotations: Records[AnnotationRow]
    image_ids: Integers
    """(I,) ascending."""
    category_ids: Integers
    """(K,) ascending."""
    class_names: tuple[str, ...]
    """(K,) names of the categories."""
    image_indices: Integers
    """(N,) index of the image of each annotation; likewise below, in the order of the file."""
    labels: Integers
    boxes: Numbers
    """(N, 4) xywh in pixels."""
    crowd: Flags

    @classmethod
    def load(cls, path: str | Path) -> CocoColumns:
        """Read and check a file; see ``GroundTruth.load``."""
        contents = read_bytes(path)
        try:
            file = msgspec.json.decode(contents, type=CocoFile)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # Decode again without types for a message that shows the value.
            file = decode_coco(path, parse_json(path, contents))
        return cls.check(path, file, fingerprint=hashlib.sha256(contents).hexdigest())

    @classmethod
    def check(cls, path: str | Path, file: CocoFile, *, fingerprint: str) -> CocoColumns:
        """Check decoded COCO JSON; ids are unique, references are resolved."""
        images, annotations, categories = coco_records(path, file)
        image_ids, category_ids = images.unique("id"), categories.unique("id")
        names = categories.distinct_texts("name")
        image_order, category_order = np.argsort(image_ids), np.argsort(category_ids)
        image_ids, category_ids = image_ids[image_order], category_ids[category_order]
        return cls(
            path=Path(path),
            fingerprint=fingerprint,
            images=Records(path, "image", [images.rows[i] for i in image_order]),
            annotations=annotations,
            image_ids=image_ids,
            category_ids=category_ids,
            class_names=tuple(names[i] for i in category_order),
            image_indices=annotations.indices("image_id", image_ids),
            labels=annotations.indices("category_id", category_ids),
            boxes=annotations.boxes("bbox"),
            crowd=annotations.flags("iscrowd"),
        )


def decode_coco(path: str | Path, data: object) -> CocoFile:
    """Check the types of decoded COCO JSON.

    Args:
        path: name of the file, for messages.
        data: the decoded JSON.

    Raises:
        ValueError: if ``data`` is not an object with the three lists of objects, or a value has
            another type.
    """
    if not isinstance(data, dict):
        raise ValueError(
            f"{path} is not COCO JSON: it must hold one object with "
            f"{list(CocoFile.__struct_fields__)}, not a {type(data).__name__}"
        )
    missing = [key for key in CocoFile.__struct_fields__ if key not in data]
    if missing:
        raise ValueError(f"{path} is not COCO JSON: it lacks {missing}; it has {sorted(data)[:8]}")
    return convert(data, CocoFile, source=path)


def coco_records(
    path: str | Path, file: CocoFile
) -> tuple[Records[ImageRow], Records[AnnotationRow], Records[CategoryRow]]:
    """Return images, annotations and categories for checks of columns."""
    return (
        Records(path, "image", file.images),
        Records(path, "annotation", file.annotations),
        Records(path, "category", file.categories),
    )


def image_sizes(images: Records[ImageRow]) -> Integers:
    """Return (I, 2) widths and heights in pixels; raise a ValueError unless all are positive."""
    sizes = np.stack([images.integers(side, Whole) for side in ("width", "height")], axis=1)
    empty = (sizes <= 0).any(axis=1)
    if empty.any():
        index = int(empty.argmax())
        width, height = sizes[index]
        images.refuse(index, f"has size {width} x {height}; both sides must be at least 1")
    return sizes


def require_finite_products(records: Records[Any], boxes: Numbers) -> None:
    """Raise a ValueError if a coordinate passes ``MAX_COORDINATE``."""
    far = np.any(np.abs(boxes) > MAX_COORDINATE, axis=1)
    if far.any():
        index = int(far.argmax())
        records.refuse(
            index,
            f"has bbox {boxes[index].tolist()}; no number may pass {MAX_COORDINATE:.0e} pixels",
        )
