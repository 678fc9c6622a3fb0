"""Annotation formats: the table of formats, their interface, and the configuration of a conversion.

A new format is one module with a class that has the methods of ``AnnotationFormat``, and one line
in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backbone.config import require_choice
from backbone.io.lazy import load_target
from detection.config import BAD_BOXES, IMAGE_MODES

if TYPE_CHECKING:
    from detection.data.convert.labels import LabeledSet


class AnnotationFormat(Protocol):
    """Reader and, if its row has ``writes``, writer of the splits of a dataset.

    An implementation is constructed with the ``ConversionConfig`` and ``progress``, whether to show
    bars.
    """

    def read(self, root: Path, split: str) -> LabeledSet:
        """Read one split.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is not in this format; one sentence that names it.
        """
        ...

    def check(
        self,
        sets: Mapping[str, LabeledSet],
        root: Path,
        categories: Sequence[Mapping[str, Any]],
    ) -> None:
        """Raise a ValueError if this format cannot hold the splits; nothing is written yet."""
        ...

    def write(
        self,
        sets: Mapping[str, LabeledSet],
        root: Path,
        categories: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write all splits with their images.

        Args:
            sets: split -> its images and boxes.
            root: the folder to write.
            categories: categories of all splits, each with ``id`` and ``name``.
        """
        ...


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """One row of the table of formats."""

    target: str
    """The class, as ``package.module:name``."""
    writes: bool = True
    """Whether it has ``check`` and ``write``."""

    def load(self) -> Any:
        """Import the class."""
        return load_target(self.target)


FORMATS = {
    "coco": FormatChoice("detection.data.convert.coco:CocoFormat"),
    "voc": FormatChoice("detection.data.convert.voc:VocFormat"),
    "yolo": FormatChoice("detection.data.convert.yolo:YoloFormat"),
    "wider": FormatChoice("detection.data.convert.wider:WiderFormat", writes=False),
}
"""Value of ``source_format`` and ``target_format`` -> its implementation."""


@dataclass(kw_only=True, slots=True)
class ConversionConfig:
    """Conversion of annotations from one format to another."""

    source: str
    """Folder to read."""
    source_format: str
    """``voc``, ``yolo``, ``wider`` or ``coco``."""
    target_format: str = "coco"
    """``coco``, ``voc`` or ``yolo``."""
    splits: list[str] = field(default_factory=lambda: ["train", "val"])
    """Names of the splits; all of them get the same categories."""
    images: str = "link"
    """How images get into the new folder: ``link``, ``copy`` or ``none``."""
    bad_boxes: str = "error"
    """Treatment of boxes without area or outside their image: ``error`` or ``drop``."""
    first_pixel: int = 1
    """Number of the first pixel in Pascal VOC files: 1 (VOC's own), or 0 with corners between
    pixels."""

    def __post_init__(self) -> None:
        require_choice("source_format", self.source_format, list(FORMATS))
        writable = [name for name, choice in FORMATS.items() if choice.writes]
        require_choice("target_format", self.target_format, writable)
        require_choice("images", self.images, IMAGE_MODES)
        require_choice("bad_boxes", self.bad_boxes, BAD_BOXES)
        if self.first_pixel not in (0, 1):
            raise ValueError(f"first_pixel must be 0 or 1, not {self.first_pixel}")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits needs names that differ, not {list(self.splits)}")


def build_format(name: str, config: ConversionConfig, *, progress: bool = True) -> AnnotationFormat:
    """Return the implementation of a format.

    Raises:
        ValueError: if there is no such format.
    """
    require_choice("format", name, list(FORMATS))
    implementation: AnnotationFormat = FORMATS[name].load()(config, progress=progress)
    return implementation
