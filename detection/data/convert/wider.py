"""WIDER FACE lists (Yang et al. 2016, "WIDER FACE: a face detection benchmark").

Every image has a line with its name, one with the number of faces, and one per face: left, top,
width and height in pixels, then blur, expression, illumination, invalid, occlusion and pose. An
image without faces has one line of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backbone.io.progress import progress_bar
from detection.data.convert.formats import ConversionConfig
from detection.data.convert.labels import (
    LabeledBox,
    LabeledImage,
    LabeledSet,
    check_name,
    image_size,
    read_text,
)

FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
CATEGORY = "face"
MAX_DIGITS = 20
"""Maximum length of a line with the number of faces."""


class WiderFormat:
    """WIDER FACE, which can only be read."""

    def __init__(self, config: ConversionConfig, *, progress: bool) -> None:
        self._progress = progress

    def read(self, root: Path, split: str) -> LabeledSet:
        return read_wider(root, split, progress=self._progress)


def read_wider(root: Path, split: str, *, progress: bool = True) -> LabeledSet:
    """Read a split of the unpacked dataset.

    Faces marked invalid become crowds (``iscrowd`` 1): they are neither trained on nor counted.

    Args:
        root: folder with ``wider_face_split`` and ``WIDER_<split>/images``.
        split: ``train`` or ``val``.
        progress: whether to show a bar.

    Raises:
        FileNotFoundError: if the list or an image is missing.
        ValueError: if the list is not in this format.
    """
    listing = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    lines = iter(enumerate(read_text(listing).splitlines(), start=1))
    folder, images = root / f"WIDER_{split}" / "images", []
    with progress_bar(desc=f"reading {split}", unit="image", shown=progress) as bar:
        for number, line in lines:
            if not line.strip():
                continue
            name = check_name(line.strip(), f"{listing}, line {number}")
            boxes = tuple(_faces(lines, listing, name))
            images.append(LabeledImage(name, *image_size(folder / name), boxes))
            bar.update()
    names = [image.file_name for image in images]
    if len(set(names)) < len(names):
        name = next(n for n in names if names.count(n) > 1)
        raise ValueError(f"{listing}: image {name!r} is listed twice")
    return LabeledSet(tuple(images), folder, ({"id": 1, "name": CATEGORY},))


def _faces(lines: Iterator[tuple[int, str]], listing: Path, name: str) -> Iterator[LabeledBox]:
    number, line = next(lines, (0, ""))
    # int() refuses thousands of digits with a message that names no file.
    if not line.strip().isdecimal() or len(line) > MAX_DIGITS:
        where = f"{listing}, line {number}" if number else f"the end of {listing}"
        raise ValueError(f"{where}: after {name!r} comes the number of faces, not {line[:60]!r}")
    count = int(line)
    for _ in range(max(count, 1)):
        number, line = next(lines, (0, ""))
        words = line.split()
        try:
            values = [int(word) for word in words]
        except ValueError:
            values = []
        if len(values) != 4 + len(FLAGS):
            where = f"{listing}, line {number}" if number else f"the end of {listing}"
            raise ValueError(
                f"{where}: a face of {name!r} has {4 + len(FLAGS)} whole numbers, not {line!r}"
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
            yield LabeledBox(CATEGORY, (x, y, width, height), extra)
