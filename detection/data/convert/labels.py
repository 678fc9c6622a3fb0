"""Format-independent labeled images.

Members that a format has beyond boxes are kept as JSON (``extra``), so that a conversion to COCO
JSON and back loses nothing.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from detection.config import BAD_BOXES, IMAGE_MODES
from detection.data.coco import EDGE_PX
from detection.data.coco_file import CategoryRow
from detection.data.columns import Records, convert

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabeledBox:
    """One object."""

    category: str
    """Name of the class."""
    xywh: tuple[float, float, float, float]
    """Left, top, width and height in pixels; the left edge of the first pixel is at 0."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further members, as JSON types."""


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """One image and its objects."""

    file_name: str
    """Path relative to the folder of images, with ``/`` between folders."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    boxes: tuple[LabeledBox, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabeledSet:
    """The images of one split."""

    images: tuple[LabeledImage, ...]
    folder: Path
    """Folder of the image files."""
    categories: tuple[Mapping[str, Any], ...] = ()
    """Name and, if the format has them, id and more; empty: the categories that occur."""
    extra: Mapping[str, Any] = field(default_factory=dict)


def check_name(name: str, source: str | Path) -> str:
    """Return the normalized name of a file below a folder.

    Raises:
        ValueError: if it is empty, absolute or leads out of the folder.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if not name.strip() or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{source}: file name {name!r} must lie below the folder of images")
    return path.as_posix()


def read_text(path: Path) -> str:
    """Return the contents of a text file in UTF-8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"file {path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height from the header of an image file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError as error:
        raise FileNotFoundError(f"image {path} does not exist") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not an image: {error}") from error


def image_stems(labeled: LabeledSet) -> list[str]:
    """Return the file names of the images without suffix, which name their label files.

    Raises:
        ValueError: if two are the same.
    """
    stems = [PurePosixPath(image.file_name).with_suffix("").as_posix() for image in labeled.images]
    if len(set(stems)) < len(stems):
        stem = next(s for s in stems if stems.count(s) > 1)
        raise ValueError(
            f"two images are called {stem!r} apart from their suffix; label files need other names"
        )
    return stems


def settle_boxes(labeled: LabeledSet, *, bad_boxes: str, source: str | Path) -> LabeledSet:
    """Refuse or drop boxes that have no area or lie outside their image.

    Raises:
        ValueError: if ``bad_boxes`` is ``error``; the message names the first and their number.
    """
    if bad_boxes not in BAD_BOXES:
        raise ValueError(f"unknown bad_boxes {bad_boxes!r}; choose from {BAD_BOXES}")
    images, bad = [], []
    for image in labeled.images:
        kept = tuple(box for box in image.boxes if _is_inside(box, image))
        bad += [(image, box) for box in image.boxes if not _is_inside(box, image)]
        images.append(replace(image, boxes=kept))
    if bad and bad_boxes == "error":
        image, box = bad[0]
        raise ValueError(
            f"{source}: {len(bad)} boxes have no area or are outside their image, the first of "
            f"them {list(box.xywh)} ({box.category}) in {image.file_name} of {image.width} x "
            f"{image.height}; bad_boxes=drop leaves them out"
        )
    if bad:
        logger.warning(
            "%s: dropped %d boxes that have no area or are outside their image", source, len(bad)
        )
    return replace(labeled, images=tuple(images))


def _is_inside(box: LabeledBox, image: LabeledImage) -> bool:
    x, y, width, height = box.xywh
    return (
        min(width, height) > 0
        and min(x, y) >= -EDGE_PX
        and x + width <= image.width + EDGE_PX
        and y + height <= image.height + EDGE_PX
    )


def merged_categories(sets: Iterable[LabeledSet]) -> tuple[dict[str, Any], ...]:
    """Return the categories of several splits, each with an id.

    Declared categories keep their ids and order; others follow in the order of their names.

    Raises:
        ValueError: if two splits declare a name with different ids, or an id with different names.
    """
    sets = list(sets)
    declared: dict[str, dict[str, Any]] = {}
    for one in sets:
        for category in one.categories:
            known = declared.setdefault(category["name"], dict(category))
            if known.get("id") != category.get("id"):
                raise ValueError(
                    f"category {category['name']!r} has the ids {known.get('id')} and "
                    f"{category.get('id')} in two splits"
                )
    occurring = {box.category for one in sets for image in one.images for box in image.boxes}
    for name in sorted(occurring - declared.keys()):
        declared[name] = {"name": name}
    taken: dict[int, str] = {}
    for name, category in declared.items():
        if "id" in category and taken.setdefault(category["id"], name) != name:
            raise ValueError(
                f"categories {taken[category['id']]!r} and {name!r} both have the id "
                f"{category['id']} in two splits; every category needs its own"
            )
    free = (number for number in range(1, len(declared) + len(taken) + 1) if number not in taken)
    return tuple({"id": next(free), **c} if "id" not in c else c for c in declared.values())


def place_images(labeled: LabeledSet, out: Path, *, mode: str) -> None:
    """Link or copy the images of a set into a folder; ``none`` only checks that they exist.

    Raises:
        FileNotFoundError: if an image is missing.
        ValueError: if there is no such mode, or something else has the name of an image.
    """
    if mode not in IMAGE_MODES:
        raise ValueError(f"unknown images {mode!r}; choose from {IMAGE_MODES}")
    for image in labeled.images:
        source, target = labeled.folder / image.file_name, out / image.file_name
        if not source.is_file():
            raise FileNotFoundError(f"image {source} does not exist")
        if mode == "none" or _is_same_entry(source, target):
            continue
        original = source.resolve()  # before a link that it may lead through is replaced
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or target.is_file():
            target.unlink()
        if target.exists():
            raise ValueError(
                f"{target} exists and is not a file; remove it to write an image there"
            )
        if mode == "link":
            target.symlink_to(original)
        else:
            shutil.copyfile(original, target)


def _is_same_entry(source: Path, target: Path) -> bool:
    """Return whether replacing ``target`` would remove ``source``; a link to it can be replaced."""
    if not target.exists() or not target.samefile(source):
        return False
    if not target.is_symlink():
        return True
    return target.parent.samefile(source.parent) and target.name == source.name


def check_categories(rows: Any, source: str | Path) -> list[dict[str, Any]]:
    """Return decoded JSON as categories with ids and names, none of which occurs twice.

    Raises:
        ValueError: if it is anything else; the message names the record and the value.
    """
    checked = convert(rows, list[CategoryRow], source=source, name="category")
    records = Records(source, "category", checked)
    records.distinct_texts("name")
    records.unique("id")
    return list(rows)
