"""Annotations from one format to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detection.config import ConversionConfig
from detection.data.convert.coco import read_coco_labels, write_coco_labels
from detection.data.convert.labels import (
    LabelledImage,
    LabelledSet,
    image_stems,
    merged_categories,
    place_images,
    settle_boxes,
)
from detection.data.convert.voc import check_voc, read_voc, write_voc
from detection.data.convert.wider import read_wider
from detection.data.convert.yolo import check_yolo, read_yolo, write_classes, write_yolo


@dataclass(frozen=True, slots=True)
class ConvertedSplit:
    """What one split came to."""

    name: str
    images: int
    boxes: dict[str, int]
    """Category -> boxes."""


def convert_annotations(
    config: ConversionConfig, out: Path, *, progress: bool = True
) -> list[ConvertedSplit]:
    """Convert the splits of a data set; all of them are read before anything is written.

    COCO's layout is ``annotations/instances_<split>.json`` and ``<split>/`` with the images; the
    modules of the other formats tell theirs.

    Args:
        config: what to convert.
        out: the folder to write.
        progress: whether to show bars.

    Raises:
        FileNotFoundError: if something is missing.
        ValueError: if the source is not what it should be, or ``out`` is the same folder.
    """
    source = Path(config.source)
    if source.resolve() == out.resolve():
        raise ValueError(f"out must be another folder than source, not {out} as well")
    if not source.is_dir():
        raise FileNotFoundError(f"folder {source} does not exist")
    sets: dict[str, LabelledSet] = {}
    for split in config.splits:
        labelled = _read(config, split, progress=progress)
        if not labelled.images:
            raise ValueError(f"{source}: {split} has no images")
        place = f"{source}, {split}"
        sets[split] = settle_boxes(labelled, bad_boxes=config.bad_boxes, source=place)
    categories = merged_categories(sets.values())
    _check_target(sets, config.target_format, categories, out)
    for split, labelled in sets.items():
        _write(labelled, config, out, split, categories, progress=progress)
    if config.target_format == "yolo":
        write_classes(out, config.splits, categories)
    return [_summary(split, labelled) for split, labelled in sets.items()]


def _read(config: ConversionConfig, split: str, *, progress: bool) -> LabelledSet:
    source = Path(config.source)
    match config.source_format:
        case "coco":
            path = source / "annotations" / f"instances_{split}.json"
            return read_coco_labels(path, source / split, progress=progress)
        case "voc":
            return read_voc(source, split, first_pixel=config.first_pixel, progress=progress)
        case "yolo":
            return read_yolo(source, split, progress=progress)
        case _:
            return read_wider(source, split, progress=progress)


def _check_target(
    sets: Mapping[str, LabelledSet],
    target_format: str,
    categories: Sequence[Mapping[str, Any]],
    out: Path,
) -> None:
    """Raise a ValueError if the target cannot hold the sets; VOC has all splits in one folder."""
    seen: dict[str, tuple[str, Path, LabelledImage]] = {}
    for split, labelled in sets.items():
        if target_format == "coco":
            continue
        stems = image_stems(labelled)
        if target_format == "yolo":
            check_yolo(labelled, out, split)
            continue
        check_voc(labelled, categories)
        for stem, image in zip(stems, labelled.images, strict=True):
            other, *same = seen.setdefault(stem, (split, labelled.folder, image))
            if same != [labelled.folder, image]:
                raise ValueError(
                    f"{stem!r} is an image of {other} and another one of {split}, but VOC has the "
                    "images of all splits in one folder; rename one of them"
                )


def _write(
    labelled: LabelledSet,
    config: ConversionConfig,
    out: Path,
    split: str,
    categories: Sequence[Mapping[str, Any]],
    *,
    progress: bool,
) -> None:
    match config.target_format:
        case "coco":
            place_images(labelled, out / split, mode=config.images)
            path = out / "annotations" / f"instances_{split}.json"
            write_coco_labels(labelled, path, categories)
        case "voc":
            place_images(labelled, out / "JPEGImages", mode=config.images)
            pixel = config.first_pixel
            write_voc(labelled, out, split, categories, first_pixel=pixel, progress=progress)
        case _:
            place_images(labelled, out / "images" / split, mode=config.images)
            write_yolo(labelled, out, split, categories, progress=progress)


def _summary(split: str, labelled: LabelledSet) -> ConvertedSplit:
    boxes = Counter(box.category for image in labelled.images for box in image.boxes)
    return ConvertedSplit(split, len(labelled.images), dict(sorted(boxes.items())))
