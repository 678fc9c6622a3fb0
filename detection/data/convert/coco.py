"""COCO JSON with all members of its records, as a format to convert from and to.

``annotations/instances_<split>.json`` holds the annotations, ``<split>/`` the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbone.io.files import write_text
from backbone.io.progress import progress_bar
from detection.data.coco_file import coco_records, decode_coco
from detection.data.columns import Text, Whole, read_json
from detection.data.convert.formats import ConversionConfig
from detection.data.convert.labels import (
    LabeledBox,
    LabeledImage,
    LabeledSet,
    check_name,
    image_size,
    place_images,
)
from detection.data.convert.voc_xml import json_text

_TABLES = ("images", "annotations", "categories")
_IMAGE_KEYS = {"id", "file_name", "width", "height"}
_BOX_KEYS = {"id", "image_id", "category_id", "bbox"}


class CocoFormat:
    """COCO JSON."""

    def __init__(self, config: ConversionConfig, *, progress: bool) -> None:
        self._config, self._progress = config, progress

    def read(self, root: Path, split: str) -> LabeledSet:
        return read_coco_labels(_annotations(root, split), root / split, progress=self._progress)

    def check(
        self,
        sets: Mapping[str, LabeledSet],
        root: Path,
        categories: Sequence[Mapping[str, Any]],
    ) -> None:
        """COCO JSON holds everything."""

    def write(
        self,
        sets: Mapping[str, LabeledSet],
        root: Path,
        categories: Sequence[Mapping[str, Any]],
    ) -> None:
        for split, labeled in sets.items():
            place_images(labeled, root / split, mode=self._config.images)
            write_coco_labels(labeled, _annotations(root, split), categories)


def _annotations(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def read_coco_labels(path: Path, folder: Path, *, progress: bool = True) -> LabeledSet:
    """Read a COCO JSON with all that its records hold.

    Args:
        path: the file.
        folder: folder of the images, whose sizes must be those that the file has.
        progress: whether to show a bar.

    Raises:
        FileNotFoundError: if there is no such file, or no such image.
        ValueError: if it is not COCO JSON or contradicts itself or an image.
    """
    data = read_json(path)
    images, annotations, categories = coco_records(path, decode_coco(path, data))
    ids, raw_names = images.unique("id"), images.distinct_texts("file_name", Text)
    names = [check_name(name, path) for name in raw_names]
    if len(set(names)) < len(names):
        name = next(n for n in names if names.count(n) > 1)
        alike = [raw for raw, n in zip(raw_names, names, strict=True) if n == name]
        raise ValueError(f"{path}: the file names {alike} are all of the image {name!r}")
    widths, heights = images.integers("width", Whole), images.integers("height", Whole)
    for i in progress_bar(
        range(len(ids)), desc=f"reading {path.stem}", unit="image", shown=progress
    ):
        width, height = image_size(folder / names[i])
        if (width, height) != (widths[i], heights[i]):
            size = f"has size {widths[i]} x {heights[i]}"
            images.refuse(i, f"{size}, but {names[i]} is {width} x {height}")
    category_ids = categories.unique("id")
    category_names = categories.distinct_texts("name")
    box_ids = annotations.unique("id", Whole).tolist()
    order, by_id = ids.argsort(), category_ids.argsort()
    image_indices = order[annotations.indices("image_id", ids[order])]
    labels = by_id[annotations.indices("category_id", category_ids[by_id])]
    boxes: list[list[LabeledBox]] = [[] for _ in names]
    xywh = annotations.boxes("bbox").tolist()
    for row, number, image, label, box in zip(
        data["annotations"], box_ids, image_indices, labels, xywh, strict=True
    ):
        extra = {"id": number} | {k: v for k, v in row.items() if k not in _BOX_KEYS}
        boxes[image].append(LabeledBox(category_names[label], tuple(box), extra))
    return LabeledSet(
        images=tuple(
            LabeledImage(
                names[i],
                int(widths[i]),
                int(heights[i]),
                tuple(boxes[i]),
                {"id": int(ids[i])} | {k: v for k, v in row.items() if k not in _IMAGE_KEYS},
            )
            for i, row in enumerate(data["images"])
        ),
        folder=folder,
        categories=tuple(data["categories"]),
        extra={k: v for k, v in data.items() if k not in _TABLES},
    )


def write_coco_labels(
    labeled: LabeledSet, path: Path, categories: Sequence[Mapping[str, Any]]
) -> None:
    """Write a COCO JSON; missing ids are numbered in the order of the set."""
    ids = {category["name"]: category["id"] for category in categories}
    images = [
        {**i.extra, "id": number, "file_name": i.file_name, "width": i.width, "height": i.height}
        for number, i in zip(_ids(labeled.images), labeled.images, strict=True)
    ]
    pairs = [
        (image["id"], box)
        for image, one in zip(images, labeled.images, strict=True)
        for box in one.boxes
    ]
    annotations = [
        {
            "area": box.xywh[2] * box.xywh[3],
            "iscrowd": 0,
            **box.extra,
            "id": number,
            "image_id": image_id,
            "category_id": ids[box.category],
            "bbox": list(box.xywh),
        }
        for number, (image_id, box) in zip(_ids([b for _, b in pairs]), pairs, strict=True)
    ]
    data = {
        **labeled.extra,
        "images": images,
        "annotations": annotations,
        "categories": [dict(category) for category in categories],
    }
    write_text(path, json_text(data) + "\n")


def _ids(items: Sequence[LabeledImage] | Sequence[LabeledBox]) -> list[int]:
    """Return the ids of all items, or 1, 2, ... if one has none or two are equal."""
    own = [item.extra.get("id") for item in items]
    distinct = all(isinstance(i, int) for i in own) and len(set(own)) == len(own)
    return [int(i) for i in own if i is not None] if distinct else list(range(1, len(own) + 1))
