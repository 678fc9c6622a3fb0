"""Pascal VOC's folders: an XML file per image (Everingham et al. 2010, development kit).

Coordinates are of pixels, the first of which is 1, and both corners belong to the box; so 1, 1, 4,
3 is a box of 4 x 3 pixels at the image's corner. Files that count from 0, with corners that lie
between pixels, are read and written with ``first_pixel=0``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tqdm import tqdm

from backbone.artifacts import write_text
from backbone.images import IMAGE_SUFFIXES
from detection.labels import (
    LabelledBox,
    LabelledImage,
    LabelledSet,
    check_name,
    image_size,
    read_text,
)
from detection.records import Records, read_json

CORNERS = ("xmin", "ymin", "xmax", "ymax")
CATEGORIES_NAME = "categories.json"
"""Beside ``Annotations``: what VOC has no place for, categories' ids above all."""
COCO_TAG = "coco"
"""Of an element that holds COCO's further members as JSON; readers of VOC skip it."""


class _Builder(ET.TreeBuilder):
    """Refuses document types, through which a small file can become a huge one."""

    def doctype(self, *_: Any) -> None:
        raise ValueError("declares a document type, which annotations have no use for")


def read_voc(root: Path, split: str, *, first_pixel: int = 1, progress: bool = True) -> LabelledSet:
    """Read the images that ``ImageSets/Main/<split>.txt`` lists.

    Args:
        root: holds ``Annotations``, ``JPEGImages`` and ``ImageSets``.
        split: name of the list.
        first_pixel: number of the first pixel, 1 or 0; see the module.
        progress: whether to show a bar.

    Raises:
        FileNotFoundError: if the list, an XML file or an image is missing.
        ValueError: if one is not what it should be.
    """
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        present = sorted(path.stem for path in listing.parent.glob("*.txt"))
        raise FileNotFoundError(f"{listing} does not exist; there are {present}")
    stems = [line.strip() for line in read_text(listing).splitlines() if line.strip()]
    if len(set(stems)) < len(stems):
        stem = next(s for s in stems if stems.count(s) > 1)
        raise ValueError(f"{listing}: {stem!r} is listed twice")
    images = tuple(
        _read_image(root, check_name(stem, listing), first_pixel)
        for stem in tqdm(stems, desc=f"reading {split}", unit="image", disable=not progress)
    )
    about = root / CATEGORIES_NAME
    categories, extra = _read_categories(about) if about.is_file() else ([], {})
    return LabelledSet(images, root / "JPEGImages", tuple(categories), extra)


def _read_categories(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    data, _ = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold an object with 'categories'")
    records = Records(path, "category", data.get("categories"))
    records.distinct_texts("name")
    records.unique("id")
    return records.rows, dict(data.get("extra") or {})


def _read_image(root: Path, stem: str, first_pixel: int) -> LabelledImage:
    path = root / "Annotations" / f"{stem}.xml"
    tree = parse_xml(path)
    file_name = _image_name(root, stem, tree, path)
    told = [_number(tree, f"size/{side}", path) for side in ("width", "height")]
    real = image_size(root / "JPEGImages" / file_name)
    if list(real) != told:
        raise ValueError(
            f"{path} says {told[0]:g} x {told[1]:g}, but {file_name} is {real[0]} x {real[1]}"
        )
    boxes = tuple(_read_object(element, path, first_pixel) for element in tree.findall("object"))
    known = {"filename", "size", "object"}
    extra = _extra(tree, known, path, voc={"depth": tree.findtext("size/depth")})
    return LabelledImage(file_name, real[0], real[1], boxes, extra)


def parse_xml(path: Path) -> ET.Element:
    """Return the root element of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not XML or declares a document type.
    """
    try:
        return ET.fromstring(path.read_bytes(), ET.XMLParser(target=_Builder()))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"file {path} does not exist") from error
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{path} is not an annotation in XML: {error}") from error


def _image_name(root: Path, stem: str, tree: ET.Element, path: Path) -> str:
    """Return the image's name: the one in the file if it fits the list, or the one that exists."""
    told = (tree.findtext("filename") or "").strip()
    folder = root / "JPEGImages"
    parent = Path(stem).parent
    names = [(parent / told).as_posix()] if Path(told).stem == Path(stem).name else []
    names += [f"{stem}{suffix}" for suffix in sorted(IMAGE_SUFFIXES)]
    for name in names:
        if (folder / check_name(name, path)).is_file():
            return name
    raise FileNotFoundError(f"image {folder / names[0]} of {path} does not exist")


def _read_object(element: ET.Element, path: Path, first_pixel: int) -> LabelledBox:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{path}: an object has no name")
    x1, y1, x2, y2 = (_number(element, f"bndbox/{corner}", path) for corner in CORNERS)
    # The last pixel belongs to the box where pixels are counted.
    xywh = (x1 - first_pixel, y1 - first_pixel, x2 - x1 + first_pixel, y2 - y1 + first_pixel)
    return LabelledBox(name, xywh, _extra(element, {"name", "bndbox"}, path))


def _number(element: ET.Element, place: str, path: Path) -> float:
    text = element.findtext(place)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}: {place} is {text!r}, not a number")
    return value


def _extra(
    element: ET.Element, known: set[str], path: Path, *, voc: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the members of COCO's, and under ``voc`` all that COCO has no name for."""
    rest = {k: v for k, v in (voc or {}).items() if v is not None}
    own: dict[str, Any] = {}
    for child in element:
        if child.tag == COCO_TAG:
            own = _coco_members(child.text or "{}", path)
        elif child.tag not in known:
            rest.setdefault(child.tag, []).append(_to_json(child))
    rest = {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in rest.items()}
    return own | ({"voc": rest} if rest else {})


def _coco_members(text: str, path: Path) -> dict[str, Any]:
    try:
        members = json.loads(text)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise ValueError(f"{path}: <{COCO_TAG}> must hold a JSON object, not {text[:60]!r}")
    return members


def _to_json(element: ET.Element) -> Any:
    if len(element) == 0:
        return element.text or ""
    inside: dict[str, list[Any]] = {}
    for child in element:
        inside.setdefault(child.tag, []).append(_to_json(child))
    return {tag: values[0] if len(values) == 1 else values for tag, values in inside.items()}


def write_voc(
    labelled: LabelledSet,
    root: Path,
    split: str,
    categories: Sequence[Mapping[str, Any]],
    *,
    first_pixel: int = 1,
    progress: bool = True,
) -> None:
    """Write a set as ``read_voc`` reads it, without its images.

    Raises:
        ValueError: if two images differ in their suffix only, or a category's name is not what XML
            can hold.
    """
    stems = [str(Path(image.file_name).with_suffix("").as_posix()) for image in labelled.images]
    if len(set(stems)) < len(stems):
        stem = next(s for s in stems if stems.count(s) > 1)
        raise ValueError(
            f"two images are called {stem!r} but for their suffix, which VOC cannot tell"
        )
    pairs = zip(stems, labelled.images, strict=True)
    for stem, image in tqdm(
        pairs, desc=f"writing {split}", unit="image", total=len(stems), disable=not progress
    ):
        tree = _image_element(image, first_pixel)
        ET.indent(tree)
        write_text(
            root / "Annotations" / f"{stem}.xml", ET.tostring(tree, encoding="unicode") + "\n"
        )
    write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{s}\n" for s in stems))
    about = {"categories": [dict(c) for c in categories], "extra": dict(labelled.extra)}
    write_text(root / CATEGORIES_NAME, json.dumps(about, ensure_ascii=False, indent=1) + "\n")


def _image_element(image: LabelledImage, first_pixel: int) -> ET.Element:
    tree = ET.Element("annotation")
    ET.SubElement(tree, "filename").text = Path(image.file_name).name
    voc = dict(image.extra.get("voc", {}))
    size = ET.SubElement(tree, "size")
    for tag, value in (("width", image.width), ("height", image.height)):
        ET.SubElement(size, tag).text = str(value)
    if "depth" in voc:
        ET.SubElement(size, "depth").text = voc.pop("depth")
    _write_extra(tree, image.extra, voc)
    for box in image.boxes:
        element = ET.SubElement(tree, "object")
        ET.SubElement(element, "name").text = box.category
        corners = ET.SubElement(element, "bndbox")
        x, y, width, height = box.xywh
        values = (x + first_pixel, y + first_pixel, x + width, y + height)
        for tag, number in zip(CORNERS, values, strict=True):
            ET.SubElement(corners, tag).text = f"{number:.12g}"
        _write_extra(element, box.extra, dict(box.extra.get("voc", {})))
    return tree


def _write_extra(element: ET.Element, extra: Mapping[str, Any], voc: Mapping[str, Any]) -> None:
    for tag, value in voc.items():
        for one in value if isinstance(value, list) else [value]:
            _from_json(element, tag, one)
    own = {key: value for key, value in extra.items() if key != "voc"}
    if own:
        ET.SubElement(element, COCO_TAG).text = json.dumps(own, ensure_ascii=False)


def _from_json(parent: ET.Element, tag: str, value: Any) -> None:
    element = ET.SubElement(parent, tag)
    if isinstance(value, Mapping):
        for key, inside in value.items():
            for one in inside if isinstance(inside, list) else [inside]:
                _from_json(element, key, one)
    else:
        element.text = str(value)
