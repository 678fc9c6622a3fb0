"""WIDER FACE's lists of faces (Yang et al. 2016, "WIDER FACE: a face detection benchmark").

For every image a line with its name, one with the number of faces, and a line per face: left, top,
width and height in pixels, then blur, expression, illumination, invalid, occlusion and pose. An
image without faces has one line of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from detection.data.convert.labels import (
    LabelledBox,
    LabelledImage,
    LabelledSet,
    check_name,
    image_size,
    read_text,
)

FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
CATEGORY = "face"
MAX_DIGITS = 20
"""Of a line with the number of faces."""


def read_wider(root: Path, split: str, *, progress: bool = True) -> LabelledSet:
    """Read a split of the unpacked data set.

    Faces that it calls invalid become crowds (``iscrowd`` 1): neither learnt nor counted.

    Args:
        root: holds ``wider_face_split`` and ``WIDER_<split>/images``.
        split: ``train`` or ``val``.
        progress: whether to show a bar.

    Raises:
        FileNotFoundError: if the list or an image is missing.
        ValueError: if the list is not of that form.
    """
    listing = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    lines = iter(enumerate(read_text(listing).splitlines(), start=1))
    folder, images = root / f"WIDER_{split}" / "images", []
    with tqdm(desc=f"reading {split}", unit="image", disable=not progress) as bar:
        for number, line in lines:
            if not line.strip():
                continue
            name = check_name(line.strip(), f"{listing}, line {number}")
            boxes = tuple(_faces(lines, listing, name))
            images.append(LabelledImage(name, *image_size(folder / name), boxes))
            bar.update()
    names = [image.file_name for image in images]
    if len(set(names)) < len(names):
        name = next(n for n in names if names.count(n) > 1)
        raise ValueError(f"{listing}: image {name!r} is listed twice")
    return LabelledSet(tuple(images), folder, ({"id": 1, "name": CATEGORY},))


def _faces(lines: Iterator[tuple[int, str]], listing: Path, name: str) -> Iterator[LabelledBox]:
    number, line = next(lines, (0, ""))
    # Python refuses to read numbers of thousands of digits, with a message that names no file.
    if not line.strip().isdecimal() or len(line) > MAX_DIGITS:
        place = f"{listing}, line {number}" if number else f"the end of {listing}"
        raise ValueError(f"{place}: after {name!r} comes the number of faces, not {line[:60]!r}")
    count = int(line)
    for _ in range(max(count, 1)):
        number, line = next(lines, (0, ""))
        words = line.split()
        try:
            values = [int(word) for word in words]
        except ValueError:
            values = []
        if len(values) != 4 + len(FLAGS):
            place = f"{listing}, line {number}" if number else f"the end of {listing}"
            raise ValueError(
                f"{place}: a face of {name!r} has {4 + len(FLAGS)} whole numbers, not {line!r}"
            )
        if not count and any(values):
            raise ValueError(
                f"{listing}, line {number}: {name!r} has 0 faces, but {line!r} follows where a "
                "line of zeros should"
            )
        if count:
            flags = dict(zip(FLAGS, values[4:], strict=True))
            x, y, width, height = map(float, values[:4])
            extra = {"iscrowd": int(flags["invalid"] == 1), **flags}
            yield LabelledBox(CATEGORY, (x, y, width, height), extra)
