"""Pascal VOC: one XML file per image (Everingham et al. 2010, development kit).

Coordinates number pixels from 1, and both corners belong to the box: 1, 1, 4, 3 is a box of 4 x 3
pixels in the top left corner. Files that count from 0, with corners between pixels, are read and
written with ``first_pixel=0``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from backbone.io.files import write_text
from backbone.io.progress import progress_bar
from backbone.training.images import IMAGE_SUFFIXES
from detection.data.columns import read_json
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
from detection.data.convert.voc_xml import (
    add_members,
    are_members,
    is_xml_text,
    json_text,
    members,
    parse_xml,
)

CORNERS = ("xmin", "ymin", "xmax", "ymax")
CATEGORIES_NAME = "categories.json"
"""File beside ``Annotations`` with the categories and their ids; further members of a COCO file are
in ``<split>.json`` beside the list of each split."""
COCO_TAG = "coco"
"""Tag of an element that holds COCO's further members as JSON; VOC readers skip it."""


_KNOWN = {"filename", "size", "object"}
_KNOWN_OF_OBJECT = {"name", "bndbox"}
_SIDES = ("width", "height")


class VocFormat:
    """Pascal VOC; all splits share one folder of images and one of XML files."""

    def __init__(self, config: ConversionConfig, *, progress: bool) -> None:
        self._config, self._progress = config, progress

    def read(self, root: Path, split: str) -> LabeledSet:
        first_pixel = self._config.first_pixel
        return read_voc(root, split, first_pixel=first_pixel, progress=self._progress)

    def check(
        self,
        sets: Mapping[str, LabeledSet],
        root: Path,
        categories: Sequence[Mapping[str, Any]],
    ) -> None:
        seen: dict[str, tuple[str, Path, LabeledImage]] = {}
        for split, labeled in sets.items():
            stems = image_stems(labeled)
            check_voc(labeled, categories)
            for stem, image in zip(stems, labeled.images, strict=True):
                other, *same = seen.setdefault(stem, (split, labeled.folder, image))
                if same != [labeled.folder, image]:
                    raise ValueError(
                        f"{stem!r} is an image of {other} and another one of {split}, but VOC has "
                        "the images of all splits in one folder; rename one of them"
                    )

    def write(
        self,
        sets: Mapping[str, LabeledSet],
        root: Path,
        categories: Sequence[Mapping[str, Any]],
    ) -> None:
        for split, labeled in sets.items():
            place_images(labeled, root / "JPEGImages", mode=self._config.images)
            write_voc(
                labeled, root, split, categories,
                first_pixel=self._config.first_pixel, progress=self._progress,
            )  # fmt: skip


def read_voc(root: Path, split: str, *, first_pixel: int = 1, progress: bool = True) -> LabeledSet:
    """Read the images that ``ImageSets/Main/<split>.txt`` lists.

    Args:
        root: holds ``Annotations``, ``JPEGImages`` and ``ImageSets``.
        split: name of the list.
        first_pixel: number of the first pixel, 1 or 0; see the module docstring.
        progress: whether to show a bar.

    Raises:
        FileNotFoundError: if the list, an XML file or an image is missing.
        ValueError: if one is not in this format.
    """
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        present = sorted(path.stem for path in listing.parent.glob("*.txt"))
        raise FileNotFoundError(f"{listing} does not exist; there are {present}")
    lines = read_text(listing).splitlines()
    stems = [check_name(line.strip(), listing) for line in lines if line.strip()]
    if len(set(stems)) < len(stems):
        stem = next(s for s in stems if stems.count(s) > 1)
        raise ValueError(f"{listing}: {stem!r} is listed twice")
    images = tuple(
        _read_image(root, stem, first_pixel)
        for stem in progress_bar(stems, desc=f"reading {split}", unit="image", shown=progress)
    )
    metadata = root / CATEGORIES_NAME
    categories = _read_categories(metadata) if metadata.is_file() else []
    further = listing.with_suffix(".json")
    extra = read_json(further) if further.is_file() else {}
    if not isinstance(extra, dict):
        raise ValueError(f"{further} must hold a JSON object")
    return LabeledSet(images, root / "JPEGImages", tuple(categories), extra)


def _read_categories(path: Path) -> list[dict[str, Any]]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold an object with 'categories'")
    return check_categories(data.get("categories"), path)


def _read_image(root: Path, stem: str, first_pixel: int) -> LabeledImage:
    path = root / "Annotations" / f"{stem}.xml"
    tree = parse_xml(path)
    file_name = _image_name(root, stem, tree, path)
    size = image_size(root / "JPEGImages" / file_name)
    declared = (
        [_number(tree, f"size/{side}", path) for side in _SIDES]
        if tree.find("size") is not None
        else size
    )
    if list(size) != list(declared):
        raise ValueError(
            f"{path} has size {declared[0]:g} x {declared[1]:g}, but {file_name} is {size[0]} x "
            f"{size[1]}"
        )
    boxes = tuple(_read_object(element, path, first_pixel) for element in tree.findall("object"))
    extra = _extra(tree, _KNOWN, path)
    return LabeledImage(file_name, size[0], size[1], boxes, extra)


def _image_name(root: Path, stem: str, tree: ET.Element, path: Path) -> str:
    """Return the declared file name if it fits the list, else the one that exists."""
    declared = (tree.findtext("filename") or "").strip()
    folder = root / "JPEGImages"
    parent = Path(stem).parent
    names = [(parent / declared).as_posix()] if Path(declared).stem == Path(stem).name else []
    names += [f"{stem}{suffix}" for suffix in sorted(IMAGE_SUFFIXES)]
    for name in names:
        if (folder / check_name(name, path)).is_file():
            return name
    raise FileNotFoundError(f"image {folder / names[0]} of {path} does not exist")


def _read_object(element: ET.Element, path: Path, first_pixel: int) -> LabeledBox:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{path}: an object has no name")
    x1, y1, x2, y2 = (_number(element, f"bndbox/{corner}", path) for corner in CORNERS)
    # The last pixel belongs to the box where pixels are counted.
    xywh = (x1 - first_pixel, y1 - first_pixel, x2 - x1 + first_pixel, y2 - y1 + first_pixel)
    return LabeledBox(name, xywh, _extra(element, _KNOWN_OF_OBJECT, path))


def _number(element: ET.Element, xpath: str, path: Path) -> float:
    text = element.findtext(xpath)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}: {xpath} is {text!r}, not a number")
    return value


def _extra(element: ET.Element, known: set[str], path: Path) -> dict[str, Any]:
    """Return COCO's further members, and under ``voc`` all elements that COCO has no name for."""
    for tag in known - {"object"} | {COCO_TAG}:
        if len(element.findall(tag)) > 1:
            raise ValueError(f"{path}: <{element.tag}> has more than one <{tag}>")
    rest = members(element, known | {COCO_TAG})
    for tag, known_tags in (("size", _SIDES), ("bndbox", CORNERS)):
        inside = element.find(tag) if tag in known else None
        if inside is not None and (more := members(inside, known_tags)):
            rest[tag] = more
    own = _coco_members(element.findtext(COCO_TAG, "{}"), path)
    return own | ({"voc": rest} if rest else {})


def _coco_members(text: str, path: Path) -> dict[str, Any]:
    try:
        own: Any = json.loads(text)
    except (ValueError, RecursionError):
        own = None
    if not isinstance(own, dict):
        raise ValueError(f"{path}: <{COCO_TAG}> must hold a JSON object, not {text[:60]!r}")
    return own


def check_voc(labeled: LabeledSet, categories: Sequence[Mapping[str, Any]]) -> None:
    """Raise a ValueError if lines or XML would change a name."""
    names = [category["name"] for category in categories]
    names += [image.file_name for image in labeled.images]
    wrong = (n for n in names if n != n.strip() or len(n.splitlines()) > 1 or not is_xml_text(n))
    for name in wrong:
        raise ValueError(
            f"VOC cannot hold the name {name!r}: it has spaces around it, more than one line or "
            "characters that XML does not know"
        )


def write_voc(
    labeled: LabeledSet,
    root: Path,
    split: str,
    categories: Sequence[Mapping[str, Any]],
    *,
    first_pixel: int = 1,
    progress: bool = True,
) -> None:
    """Write a set as ``read_voc`` reads it, without its images.

    Raises:
        ValueError: if two images differ in their suffix only, or VOC cannot hold a name.
    """
    stems = image_stems(labeled)
    check_voc(labeled, categories)
    pairs = zip(stems, labeled.images, strict=True)
    for stem, image in progress_bar(
        pairs, desc=f"writing {split}", unit="image", total=len(stems), shown=progress
    ):
        tree = _image_element(image, first_pixel)
        ET.indent(tree)
        write_text(
            root / "Annotations" / f"{stem}.xml", ET.tostring(tree, encoding="unicode") + "\n"
        )
    write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{s}\n" for s in stems))
    further = root / "ImageSets" / "Main" / f"{split}.json"
    further.unlink(missing_ok=True)  # left by an earlier conversion
    if labeled.extra:
        write_text(further, json_text(dict(labeled.extra)) + "\n")
    metadata = {"categories": [dict(category) for category in categories]}
    write_text(root / CATEGORIES_NAME, json_text(metadata) + "\n")


def _image_element(image: LabeledImage, first_pixel: int) -> ET.Element:
    tree = ET.Element("annotation")
    ET.SubElement(tree, "filename").text = Path(image.file_name).name
    size = ET.SubElement(tree, "size")
    for tag, value in (("width", image.width), ("height", image.height)):
        ET.SubElement(size, tag).text = str(value)
    _write_extra(tree, image.extra, _KNOWN, "size", _SIDES)
    for box in image.boxes:
        element = ET.SubElement(tree, "object")
        ET.SubElement(element, "name").text = box.category
        corners = ET.SubElement(element, "bndbox")
        x, y, width, height = box.xywh
        values = (x + first_pixel, y + first_pixel, x + width, y + height)
        for tag, number in zip(CORNERS, values, strict=True):
            ET.SubElement(corners, tag).text = f"{number:.12g}"
        _write_extra(element, box.extra, _KNOWN_OF_OBJECT, "bndbox", CORNERS)
    return tree


def _write_extra(
    element: ET.Element,
    extra: Mapping[str, Any],
    known: set[str],
    part: str,
    tags: Sequence[str],
) -> None:
    """Write VOC's members as elements, those of ``part`` into it, and all others as JSON."""
    own = dict(extra)
    voc = own.get("voc")
    rest = dict(voc) if isinstance(voc, Mapping) else {}
    inside = rest.pop(part, None)
    fits_xml = (rest or inside) and all(
        values is None or are_members(values, leave_out)
        for values, leave_out in ((rest or None, {*known, COCO_TAG}), (inside, tags))
    )
    if fits_xml:
        del own["voc"]
        add_members(element, rest)
        add_members(next(element.iter(part)), inside or {})
    if own:
        ET.SubElement(element, COCO_TAG).text = json_text(own)
