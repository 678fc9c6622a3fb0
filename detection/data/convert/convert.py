"""Convert annotations from one format to another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from detection.data.convert.formats import ConversionConfig, build_format
from detection.data.convert.labels import LabeledSet, merged_categories, settle_boxes


@dataclass(frozen=True, slots=True)
class ConvertedSplit:
    """Number of images and boxes of one split."""

    name: str
    images: int
    boxes: dict[str, int]
    """Category -> boxes."""


def convert_annotations(
    config: ConversionConfig, out: Path, *, progress: bool = True
) -> list[ConvertedSplit]:
    """Convert the splits of a dataset; all of them are read before anything is written.

    Args:
        config: source, formats and splits.
        out: the folder to write.
        progress: whether to show bars.

    Raises:
        FileNotFoundError: if something is missing.
        ValueError: if the source is not in its format, the target cannot hold it, or ``out`` is
            the same folder.
    """
    source = Path(config.source)
    if source.resolve() == out.resolve():
        raise ValueError(f"out must be another folder than source, not {out} as well")
    if not source.is_dir():
        problem = "is a file; give its folder" if source.exists() else "does not exist"
        raise FileNotFoundError(f"source {source} {problem}")
    reader = build_format(config.source_format, config, progress=progress)
    writer = build_format(config.target_format, config, progress=progress)
    sets: dict[str, LabeledSet] = {}
    for split in config.splits:
        labeled = reader.read(source, split)
        if not labeled.images:
            raise ValueError(f"{source}: {split} has no images")
        sets[split] = settle_boxes(labeled, bad_boxes=config.bad_boxes, source=f"{source}, {split}")
    categories = merged_categories(sets.values())
    writer.check(sets, out, categories)
    writer.write(sets, out, categories)
    return [_summarize(split, labeled) for split, labeled in sets.items()]


def _summarize(split: str, labeled: LabeledSet) -> ConvertedSplit:
    boxes = Counter(box.category for image in labeled.images for box in image.boxes)
    return ConvertedSplit(split, len(labeled.images), dict(sorted(boxes.items())))
