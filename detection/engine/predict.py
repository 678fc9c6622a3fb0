"""Detect in images from disk; write drawn images and JSON."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from backbone.io.files import replacing, write_json
from backbone.training.images import IMAGE_SUFFIXES, read_image
from detection.config import InferenceConfig
from detection.engine.tta import Vision, batches_of_equals, detect_in_pixels
from detection.engine.visualize import draw_detections
from detection.models.checkpoint import DetectorInfo
from detection.models.detector import Detector
from detection.structures import Detections

READ_AHEAD = 8
"""Batches that are read before the first is detected in, so that equal sizes meet."""


def find_images(pattern: str) -> list[Path]:
    """Return the images that a path names: a file, all images in a folder, or a glob's matches.

    Raises:
        ValueError: if there is none.
    """
    path = Path(pattern)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    elif path.is_file():
        found = [path]
    else:
        matches = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
        found = [p for p in matches if p.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise ValueError(f"no image at {pattern!r}; give an image, a folder of images or a glob")
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What came out of a number of images."""

    path: Path
    """Of ``predictions.json``."""
    broken: tuple[str, ...]
    """Why images could not be read, in a sentence each."""


def predict_images(
    detector: Detector,
    info: DetectorInfo,
    paths: Sequence[Path],
    out_dir: Path,
    *,
    vision: Vision | None = None,
    batch_size: int = 1,
    progress: bool = True,
) -> Predictions:
    """Detect in images; write a drawn PNG for each, and ``predictions.json``.

    It is a list with, for every image, ``file``, ``drawing``, ``width``, ``height`` and
    ``detections``, best first, each with ``box_xyxy`` in pixels of the image, ``score``,
    ``category_id`` and ``class_name``; or, for one that cannot be read, ``file`` and ``error``.

    Args:
        detector: in evaluation mode.
        info: its classes and the size that it wants images in.
        paths: the images; pictures that would have the same name are numbered.
        out_dir: the folder to write to.
        vision: how images are looked at; None: as the detector was trained.
        batch_size: images at a time; only those of equal size go together.
        progress: whether to show a bar.
    """
    vision = vision or Vision.of(info)
    names = _picture_names(paths)
    records: dict[int, dict[str, Any]] = {}
    broken = []
    with tqdm(total=len(paths), desc="predicting", unit="image", disable=not progress) as bar:
        for first in range(0, len(paths), READ_AHEAD * batch_size):
            images: dict[int, Tensor] = {}
            for place in range(first, min(first + READ_AHEAD * batch_size, len(paths))):
                try:
                    images[place] = read_image(paths[place])
                except (ValueError, OSError) as error:
                    broken.append(str(error))
                    records[place] = {"file": str(paths[place]), "error": str(error)}
                    bar.update()
            places = list(images)
            shapes = [images[place].shape for place in places]
            for batch in batches_of_equals(shapes, batch_size):
                pixels = [images[places[i]] for i in batch]
                for i, found in zip(batch, detect_in_pixels(detector, pixels, vision), strict=True):
                    place = places[i]
                    _draw(images[place], found, info, out_dir / names[place])
                    records[place] = _record(paths[place], names[place], images[place], found, info)
                bar.update(len(batch))
    path = out_dir / "predictions.json"
    write_json(path, [records[place] for place in range(len(paths))])
    return Predictions(path, tuple(broken))


def _draw(pixels: Tensor, found: Detections, info: DetectorInfo, path: Path) -> None:
    drawing = draw_detections(pixels, found.boxes, found.labels, found.scores, info.class_names)
    with replacing(path) as temporary:
        drawing.save(temporary)


def detect(
    detector: Detector, info: DetectorInfo, pixels: Tensor, *, score_threshold: float
) -> Detections:
    """Detect in one image as read, (3, H, W) uint8; boxes are in its own pixels."""
    vision = Vision.of(info, InferenceConfig(score_threshold=score_threshold))
    return detect_in_pixels(detector, [pixels], vision)[0]


def _record(
    path: Path, name: str, pixels: Tensor, found: Detections, info: DetectorInfo
) -> dict[str, Any]:
    height, width = pixels.shape[-2:]
    return {
        "file": str(path),
        "drawing": name,
        "width": width,
        "height": height,
        "detections": detection_records(found, info),
    }


def detection_records(found: Detections, info: DetectorInfo) -> list[dict[str, Any]]:
    """Return the detections of one image as JSON's types; see ``predict_images``."""
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [
        {
            "box_xyxy": [round(value, 3) for value in box],
            "score": round(score, 6),
            "category_id": info.category_ids[label],
            "class_name": info.class_names[label],
        }
        for box, score, label in rows
    ]


def _picture_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each picture, numbering those of images that share theirs."""
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name, number = f"{path.stem}.png", 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}.png"
        taken.add(name)
        names.append(name)
    return names
