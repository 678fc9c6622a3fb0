"""YOLO: a text file per image, a line per box, in fractions of the image's sides.

``images/<split>`` and ``labels/<split>`` hold files of equal names, ``data.yaml`` the names of the
classes by number; a folder without it may have ``classes.txt``, a name per line. Members that a
line cannot hold (ids, areas, crowds, outlines, ...) are in a sidecar file,
``labels/<split>.json``, which other programs do not read; crowds are in that file alone, since YOLO
would train on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from backbone.io.files import write_text
from backbone.io.progress import progress_bar
from backbone.training.images import IMAGE_SUFFIXES
from detection.data.columns import Box, Records, Text, convert, read_json
from detection.data.convert.formats import ConversionConfig
from detection.data.convert.labels import (
    LabeledBox,
    LabeledImage,
    LabeledSet,
    check_categories,
    check_name,
    image_size,
    image_stems,
    place_images,
    read_text,
)
from detection.data.convert.voc_xml import json_text

CLASSES_NAME = "data.yaml"
CLASS_LIST_NAME = "classes.txt"


class YoloFormat:
    """YOLO text files."""

    def __init__(self, config: ConversionConfig, *, progress: bool) -> None:
        self._config, self._progress = config, progress

    def read(self, root: Path, split: str) -> LabeledSet:
        return read_yolo(root, split, progress=self._progress)

    def check(
        self,
        sets: Mapping[str, LabeledSet],
        root: Path,
        categories: Sequence[Mapping[str, Any]],
    ) -> None:
        for split, labeled in sets.items():
            image_stems(labeled)
            check_yolo(labeled, root, split)

    def write(
        self,
        sets: Mapping[str, LabeledSet],
        root: Path,
        categories: Sequence[Mapping[str, Any]],
    ) -> None:
        for split, labeled in sets.items():
            place_images(labeled, root / "images" / split, mode=self._config.images)
            write_yolo(labeled, root, split, categories, progress=self._progress)
        write_classes(root, list(sets), categories)


class _BoxRow(msgspec.Struct):
    """A box that only the sidecar file holds."""

    category: Text
    bbox: Box
    extra: dict[str, Any]


def read_yolo(root: Path, split: str, *, progress: bool = True) -> LabeledSet:
    """Read the images of a split and their boxes; an image without a text file has none.

    Raises:
        FileNotFoundError: if a folder or the names of the classes are missing.
        ValueError: if a line is not five numbers, names no class or leaves its image; if a text
            file has no image; or if the sidecar file does not fit the lines.
    """
    names = _read_names(root)
    folder, labels = root / "images" / split, root / "labels" / split
    if not folder.is_dir():
        raise FileNotFoundError(
            f"image folder {folder} does not exist; expected are {root}/images/{split} and "
            f"{root}/labels/{split}, the paths in {CLASSES_NAME} are not read"
        )
    if not labels.is_dir():
        raise FileNotFoundError(
            f"label folder {labels} does not exist; if no image has an object, make it and leave "
            "it empty"
        )
    files = _image_files(folder)
    _check_pairs(files, labels, folder)
    sidecar = root / "labels" / f"{split}.json"
    metadata: dict[str, Any] = (
        _read_sidecar(sidecar, files) if sidecar.is_file() else {"images": {}}
    )
    images = [
        _read_image(folder / name, name, labels, names, metadata["images"].get(name), sidecar)
        for name in progress_bar(files, desc=f"reading {split}", unit="image", shown=progress)
    ]
    categories = metadata.get("categories") or [{"name": name} for name in names.values()]
    return LabeledSet(tuple(images), folder, tuple(categories), metadata.get("extra", {}))


def _image_files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
    )


def _read_names(root: Path) -> dict[int, str]:
    path, listing = root / CLASSES_NAME, root / CLASS_LIST_NAME
    if path.exists():
        return _read_yaml_names(path)
    if not listing.exists():
        raise FileNotFoundError(
            f"{root} has neither {CLASSES_NAME} nor {CLASS_LIST_NAME} with the names of the classes"
        )
    lines = [line.strip() for line in read_text(listing).rstrip().splitlines()]
    # A blank line between names could be a class without a name, or no class.
    if not all(lines) or not lines:
        number = lines.index("") + 1 if lines else 1
        raise ValueError(f"{listing}, line {number}: a class has no name")
    if len(set(lines)) < len(lines):
        raise ValueError(f"{listing}: two classes have the same name")
    return dict(enumerate(lines))


def _read_yaml_names(path: Path) -> dict[int, str]:
    text = read_text(path)
    try:
        data, nodes = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    _check_keys(nodes, path)
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    right = isinstance(names, dict) and all(
        isinstance(key, int) and isinstance(name, str | int) for key, name in names.items()
    )
    if not right or not names:
        raise ValueError(f"{path} must have 'names', a list of classes or a map from their numbers")
    texts = {key: str(name) for key, name in names.items()}
    if len(set(texts.values())) < len(texts):
        raise ValueError(f"{path}: two classes have the same name")
    return texts


def _check_keys(node: Any, path: Path) -> None:
    """Refuse duplicate keys in the file and in its ``names``, of which YAML takes the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    keys = [key.value for key, _ in node.value]
    for key, value in node.value:
        if keys.count(key.value) > 1:
            raise ValueError(f"{path}: {key.value!r} occurs {keys.count(key.value)} times")
        if key.value == "names":
            _check_keys(value, path)


def _check_pairs(files: Sequence[str], labels: Path, folder: Path) -> None:
    stems = [Path(name).with_suffix("").as_posix() for name in files]
    if len(set(stems)) < len(stems):
        stem = next(s for s in stems if stems.count(s) > 1)
        raise ValueError(f"{folder}: two images are called {stem!r} apart from their suffix")
    texts = {path.relative_to(labels).with_suffix("").as_posix() for path in labels.rglob("*.txt")}
    alone = sorted(texts - set(stems))
    if alone:
        raise ValueError(
            f"{len(alone)} label files have no image in {folder}, the first of them "
            f"{labels / alone[0]}.txt"
        )


def _read_sidecar(path: Path, files: Sequence[str]) -> dict[str, Any]:
    """Read and check ``labels/<split>.json``."""
    data = read_json(path)
    fault = "is not the sidecar file of YOLO labels; remove it to convert without it"
    if not isinstance(data, dict) or not isinstance(data.get("images"), dict):
        raise ValueError(f"{path} {fault}")
    if not all(isinstance(one, dict) for one in (data.get("extra", {}), *data["images"].values())):
        raise ValueError(f"{path} {fault}")
    gone = sorted(data["images"].keys() - set(files))
    if gone:
        raise ValueError(f"{path} has {len(gone)} images that do not exist, first {gone[0]!r}")
    if "categories" in data:
        check_categories(data["categories"], path)
    return data


def _read_image(
    path: Path,
    name: str,
    labels: Path,
    names: Mapping[int, str],
    sidecar: Any,
    source: Path,
) -> LabeledImage:
    width, height = image_size(path)
    text = (labels / name).with_suffix(".txt")
    lines = read_text(text).splitlines() if text.exists() else []
    boxes = [
        _read_line(line, (width, height), names, f"{text}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if sidecar is None:
        return LabeledImage(name, width, height, tuple(boxes))
    try:
        extras, extra = sidecar["boxes"], dict(sidecar["extra"])
        apart = convert(sidecar["apart"], list[_BoxRow], source=source, name="box")
        Records(source, "box", apart).boxes("bbox")
        pairs = zip(boxes, extras, strict=True)
        boxes = [LabeledBox(box.category, box.xywh, dict(more)) for box, more in pairs]
        boxes += [LabeledBox(row.category, row.bbox, row.extra) for row in apart]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{source} does not fit {text}, which seems to have been changed since; remove "
            "the former to convert without it"
        ) from error
    return LabeledImage(name, width, height, tuple(boxes), extra)


def _read_line(
    line: str, size: tuple[int, int], names: Mapping[int, str], source: str
) -> LabeledBox:
    words = line.split()
    try:
        label, *fractions = int(words[0]), *map(float, words[1:])
    except ValueError:
        raise ValueError(f"{source}: {line!r} is not a class and four numbers") from None
    if len(fractions) != 4 or not all(map(math.isfinite, fractions)):
        raise ValueError(
            f"{source}: {line!r} has {len(words)} values; a box has a class and four numbers"
        )
    if label not in names:
        raise ValueError(
            f"{source}: there is no class {label}; there are {len(names)}, from {min(names)} to "
            f"{max(names)}"
        )
    width, height = fractions[2] * size[0], fractions[3] * size[1]
    return LabeledBox(
        names[label],
        (fractions[0] * size[0] - width / 2, fractions[1] * size[1] - height / 2, width, height),
    )


def check_yolo(labeled: LabeledSet, root: Path, split: str) -> None:
    """Raise a ValueError if the folders of a split hold other files, which would be read with it.

    YOLO has no list of images: one from an earlier conversion would count as one without objects.
    """
    images, labels = root / "images" / split, root / "labels" / split
    names = {image.file_name for image in labeled.images}
    texts = {(labels / name).with_suffix(".txt") for name in names}
    other = [images / name for name in _image_files(images) if name not in names]
    other += sorted(set(labels.rglob("*.txt")) - texts)
    if other:
        raise ValueError(
            f"{len(other)} files would be read as a part of {split} and are not, the first: "
            f"{other[0]}; remove them or choose another out"
        )


def write_yolo(
    labeled: LabeledSet,
    root: Path,
    split: str,
    categories: Sequence[Mapping[str, Any]],
    *,
    progress: bool = True,
) -> None:
    """Write a set as ``read_yolo`` reads it, without its images.

    Raises:
        ValueError: if two images differ in their suffix only.
    """
    labels, numbers = root / "labels" / split, {c["name"]: n for n, c in enumerate(categories)}
    image_stems(labeled)
    sidecar = {}
    for image in progress_bar(
        labeled.images, desc=f"writing {split}", unit="image", shown=progress
    ):
        check_name(image.file_name, root)
        written = [box for box in image.boxes if not box.extra.get("iscrowd")]
        apart = [box for box in image.boxes if box.extra.get("iscrowd")]
        lines = (_line(box, numbers[box.category], image) for box in written)
        write_text((labels / image.file_name).with_suffix(".txt"), "".join(lines))
        sidecar[image.file_name] = {
            "extra": dict(image.extra),
            "boxes": [dict(box.extra) for box in written],
            "apart": [
                {"category": b.category, "bbox": list(b.xywh), "extra": dict(b.extra)}
                for b in apart
            ],
        }
    metadata = {
        "images": sidecar,
        "categories": [dict(category) for category in categories],
        "extra": dict(labeled.extra),
    }
    write_text(root / "labels" / f"{split}.json", json_text(metadata) + "\n")


def write_classes(
    root: Path, splits: Sequence[str], categories: Sequence[Mapping[str, Any]]
) -> None:
    """Write ``data.yaml`` with the image folder of each split and the class names by number."""
    data = {split: f"images/{split}" for split in splits}
    names = {number: category["name"] for number, category in enumerate(categories)}
    content = {"path": ".", **data, "names": names}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    if yaml.safe_load(text) != content:  # an unescaped Unicode line break is read as a space
        text = yaml.safe_dump(content, sort_keys=False)
    write_text(root / CLASSES_NAME, text)


def _line(box: LabeledBox, label: int, image: LabeledImage) -> str:
    x, y, width, height = box.xywh
    fractions = (
        (x + width / 2) / image.width,
        (y + height / 2) / image.height,
        width / image.width,
        height / image.height,
    )
    return f"{label} {' '.join(f'{fraction:.12g}' for fraction in fractions)}\n"
