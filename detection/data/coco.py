"""COCO JSON, read once into one table that serves training and scoring."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from detection.config import BAD_BOXES
from detection.data.coco_file import (
    CocoColumns,
    decode_coco,
    image_sizes,
    require_finite_products,
)
from detection.data.columns import Flags, Integers, Numbers, Text, Whole

logger = logging.getLogger(__name__)

EDGE_PX = 1.0
"""A box may pass the edge of its image by this much, which rounding explains; it is clipped."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of the dataset."""

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


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """Objects of a COCO JSON as columns, in the order of the file.

    Boxes are neither clipped nor dropped, so the metrics equal those of any other evaluation on
    the file. A missing area is that of the box.
    """

    path: Path
    fingerprint: str
    """SHA-256 of the file."""
    image_ids: Integers
    """(I,) ascending."""
    image_names: tuple[str, ...]
    """(I,) file names; the id where there is none."""
    category_ids: Integers
    """(K,) ascending."""
    class_names: tuple[str, ...]
    """(K,) names of the categories."""
    image_indices: Integers
    """(N,) index of each object's image, 0 to I - 1."""
    labels: Integers
    """(N,) index of each object's category, 0 to K - 1."""
    boxes: Numbers
    """(N, 4) xywh in pixels."""
    areas: Numbers
    """(N,) square pixels."""
    crowd: Flags
    """(N,) whether a box surrounds a crowd instead of one object."""

    @classmethod
    def load(cls, path: str | Path) -> GroundTruth:
        """Read a COCO JSON for scoring; its images may lack file names and sizes.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not COCO JSON or contradicts itself; the message names the
                file, the record and the value.
        """
        return cls._from_columns(CocoColumns.load(path))

    @classmethod
    def from_dict(cls, data: object, *, path: str | Path = "annotations") -> GroundTruth:
        """Check decoded COCO JSON; see ``load``.

        Args:
            data: the decoded JSON.
            path: name of the file, for messages.
        """
        return cls._from_columns(CocoColumns.check(path, decode_coco(path, data), fingerprint=""))

    @classmethod
    def _from_columns(cls, columns: CocoColumns) -> GroundTruth:
        require_finite_products(columns.annotations, columns.boxes)
        box_areas = columns.boxes[:, 2] * columns.boxes[:, 3]
        files = [row.file_name for row in columns.images.rows]
        return cls(
            path=columns.path,
            fingerprint=columns.fingerprint,
            image_ids=columns.image_ids,
            image_names=tuple(
                _printable(number if file is UNSET or not file else file)
                for file, number in zip(files, columns.image_ids.tolist(), strict=True)
            ),
            category_ids=columns.category_ids,
            class_names=columns.class_names,
            image_indices=columns.image_indices,
            labels=columns.labels,
            boxes=columns.boxes,
            areas=columns.annotations.numbers("area", float, otherwise=box_areas),
            crowd=columns.crowd,
        )

    def indices_of(self, image_ids: Sequence[int] | None) -> Integers:
        """Return the indices of images in ascending order; of all images for None.

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


@dataclass(frozen=True, slots=True, eq=False)
class CocoTable:
    """Images, categories and objects of a COCO JSON, for training and for scoring.

    Objects are columns in the order of the file; training reads them by image, clipped to it.
    860,001 boxes of COCO train2017 take 56 MB.
    """

    path: Path
    fingerprint: str
    """SHA-256 of the file."""
    images: tuple[ImageRecord, ...]
    """In ascending order of id."""
    categories: tuple[Category, ...]
    """In ascending order of id; a label is an index into it."""
    labels: Integers
    """(N,) 0 to K - 1, in the order of the file; likewise below."""
    boxes: Numbers
    """(N, 4) xywh in pixels, as in the file."""
    crowd: Flags
    """(N,) whether a box surrounds a crowd instead of one object."""
    rows: Integers
    """(M,) objects to train on, by image; those that ``bad_boxes=drop`` left out are missing."""
    offsets: Integers
    """(images + 1,) ``rows[offsets[i] : offsets[i + 1]]`` are the objects of image i."""
    _ground_truth: GroundTruth | str
    """The objects for scoring, or why they cannot be scored."""

    @classmethod
    def load(cls, path: str | Path, *, bad_boxes: str = "error") -> CocoTable:
        """Read and check a COCO JSON.

        Args:
            path: COCO JSON with ``images``, ``annotations`` and ``categories``.
            bad_boxes: what to do with boxes without area or outside their image: ``error``, or
                ``drop`` them from training with a warning.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not COCO JSON or contradicts itself; the message names the
                file, the record and the value.
        """
        if bad_boxes not in BAD_BOXES:
            raise ValueError(f"unknown bad_boxes {bad_boxes!r}; choose from {BAD_BOXES}")
        columns = CocoColumns.load(path)
        images = _image_records(columns)
        columns.annotations.unique("id", Whole)
        good = _check_boxes(columns, images, drop=bad_boxes == "drop")
        rows = np.flatnonzero(good)[np.argsort(columns.image_indices[good], kind="stable")]
        counts = np.bincount(columns.image_indices[rows], minlength=len(images))
        try:
            ground_truth: GroundTruth | str = GroundTruth._from_columns(columns)
        except ValueError as error:  # areas, which training does not need
            ground_truth = str(error)
        pairs = zip(columns.category_ids.tolist(), columns.class_names, strict=True)
        return cls(
            path=columns.path,
            fingerprint=columns.fingerprint,
            images=images,
            categories=tuple(Category(*pair) for pair in pairs),
            labels=columns.labels,
            boxes=columns.boxes,
            crowd=columns.crowd,
            rows=rows,
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            _ground_truth=ground_truth,
        )

    @property
    def ground_truth(self) -> GroundTruth:
        """The objects for scoring.

        Raises:
            ValueError: if an area or a box of the file cannot be scored.
        """
        if isinstance(self._ground_truth, str):
            raise ValueError(self._ground_truth)  # the file's fault, not a type's
        return self._ground_truth

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label."""
        return tuple(category.name for category in self.categories)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO category ids by label."""
        return tuple(category.id for category in self.categories)

    def boxes_of(self, index: int) -> NDArray[np.float32]:
        """Return the boxes of image ``index``, clipped to it: (N, 4) float32 xyxy in pixels."""
        boxes = self.boxes[self._rows_of(index)]
        image = self.images[index]
        limits = np.array([[image.width, image.height]], dtype=np.float64)
        return _clip(boxes, limits)[0]

    def labels_of(self, index: int) -> Integers:
        """Return the labels of the same boxes: (N,) int64, 0 to K - 1."""
        return self.labels[self._rows_of(index)]

    def crowd_of(self, index: int) -> Flags:
        """Return which of the same boxes surround crowds: (N,) bool."""
        return self.crowd[self._rows_of(index)]

    def _rows_of(self, index: int) -> Integers:
        if not 0 <= index < len(self.images):
            raise IndexError(f"image {index} of {len(self.images)} in {self.path}")
        return self.rows[int(self.offsets[index]) : int(self.offsets[index + 1])]


def require_categories(
    known: Iterable[Category], source: str | Path, annotations: CocoTable
) -> None:
    """Raise a ValueError unless a file declares these categories, ids and names.

    Equal ids alone would let one class be counted as another: converters number the classes that a
    split happens to have.

    Args:
        known: categories of a detector or of another file.
        source: their origin, for the message.
        annotations: the file to check.
    """
    ours = {category.id: category.name for category in known}
    theirs = {category.id: category.name for category in annotations.categories}
    if ours == theirs:
        return
    differing = min(id for id in ours.keys() | theirs.keys() if ours.get(id) != theirs.get(id))
    first, second = (
        repr(names[differing]) if differing in names else "no class" for names in (ours, theirs)
    )
    raise ValueError(
        f"{source} and {annotations.path} have different categories: id {differing} is {first} "
        f"in the first and {second} in the second"
    )


def _image_records(columns: CocoColumns) -> tuple[ImageRecord, ...]:
    names, sizes = columns.images.values("file_name", Text), image_sizes(columns.images)
    rows = zip(columns.image_ids.tolist(), names, *sizes.T.tolist(), strict=True)
    return tuple(ImageRecord(*row) for row in rows)


def _check_boxes(columns: CocoColumns, images: Sequence[ImageRecord], *, drop: bool) -> Flags:
    """Return which boxes have an area and lie inside their images."""
    boxes = columns.boxes
    sizes = np.array([(i.width, i.height) for i in images], dtype=np.float64).reshape(-1, 2)
    limits = sizes[columns.image_indices]
    clipped, outside = _clip(boxes, limits)
    flat = np.any(boxes[:, 2:] <= 0, axis=1)
    bad = flat | outside | np.any(clipped[:, 2:] <= clipped[:, :2], axis=1)
    if bad.any() and not drop:
        index = int(bad.argmax())
        width, height = limits[index].astype(int)
        fault = (
            "whose width and height must be above 0"
            if flat[index]
            else f"outside its image of {width} x {height} pixels"
        )
        columns.annotations.refuse(
            index,
            f"has bbox {boxes[index].tolist()}, {fault}; bad_boxes=drop leaves out such boxes",
        )
    if bad.any():
        logger.warning(
            "%s: dropped %d of %d boxes, which have no area or are outside their image",
            columns.path,
            int(bad.sum()),
            bad.size,
        )
    return ~bad


def _clip(boxes: Numbers, limits: Numbers) -> tuple[NDArray[np.float32], Flags]:
    """Clip xywh boxes to their images.

    Args:
        boxes: (N, 4) xywh in pixels.
        limits: (N, 2) or (1, 2) width and height of the images.

    Returns:
        (N, 4) xyxy, and (N,) which of them pass an edge by more than ``EDGE_PX``.
    """
    with np.errstate(over="ignore"):
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    inside = np.concatenate([limits, limits], axis=1)
    outside = np.any((corners < -EDGE_PX) | (corners > inside + EDGE_PX), axis=1)
    return np.clip(corners, 0, inside).astype(np.float32), outside


def _printable(name: object) -> str:
    """Return any value as text that can be encoded; it is used in messages and reports only."""
    return str(name).encode("utf-8", "backslashreplace").decode()
