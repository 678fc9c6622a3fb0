"""Detect objects in image files; write drawn images and JSON."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from backbone.io.files import replacing, write_json
from backbone.io.progress import progress_bar
from backbone.training.images import IMAGE_SUFFIXES, read_image
from detection.engine.tta import TestTimeAugmentation, group_batches, predict_images
from detection.engine.visualize import draw_detections
from detection.models.checkpoint import DetectorInfo
from detection.models.detector import Detector
from detection.structures import Detections

READ_AHEAD = 8
"""Number of batches that are read ahead, so that images of equal size form batches."""


def find_images(pattern: str) -> list[Path]:
    """Return the images of a path: a file, all images in a folder, or the matches of a glob.

    Raises:
        ValueError: if there are none.
    """
    path = Path(pattern)
    if path.is_dir():
        images = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    elif path.is_file():
        images = [path]
    else:
        matches = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
        images = [p for p in matches if p.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(f"no image at {pattern!r}; give an image, a folder of images or a glob")
    return sorted(images)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Result of detection in image files."""

    path: Path
    """Path of ``predictions.json``."""
    num_objects: int
    """Number of detections in all images."""
    broken: tuple[str, ...]
    """Errors of images that could not be read, one sentence each."""


def predict_files(
    detector: Detector,
    info: DetectorInfo,
    paths: Sequence[Path],
    out_dir: Path,
    *,
    tta: TestTimeAugmentation | None = None,
    batch_size: int = 1,
    progress: bool = True,
) -> Predictions:
    """Detect objects in image files; write a drawn PNG for each, and ``predictions.json``.

    That is a list with one entry per image: ``file``, ``drawing``, ``width``, ``height`` and
    ``detections``, best first, each with ``box_xyxy`` in pixels of the image, ``score``,
    ``category_id`` and ``class_name``; or, if it cannot be read, ``file`` and ``error``.

    Args:
        detector: in evaluation mode.
        info: its classes and input size.
        paths: the images; drawings whose names would be equal are numbered.
        out_dir: the folder to write to.
        tta: views of each image; None: the one that the detector was trained for.
        batch_size: maximum number of images per batch; those of a batch are of equal size.
        progress: whether to show a progress bar.
    """
    tta = tta or TestTimeAugmentation.from_config(info)
    names = _picture_names(paths)
    records: dict[int, dict[str, Any]] = {}
    broken = []
    with progress_bar(total=len(paths), desc="predicting", unit="image", shown=progress) as bar:
        for first in range(0, len(paths), READ_AHEAD * batch_size):
            images: dict[int, Tensor] = {}
            for index in range(first, min(first + READ_AHEAD * batch_size, len(paths))):
                try:
                    images[index] = read_image(paths[index])
                except (ValueError, OSError) as error:
                    broken.append(str(error))
                    records[index] = {"file": str(paths[index]), "error": str(error)}
                    bar.update()
            indices = list(images)
            shapes = [images[index].shape for index in indices]
            for batch in group_batches(shapes, batch_size):
                pixels = [images[indices[i]] for i in batch]
                outputs = predict_images(detector, pixels, tta)
                for i, detections in zip(batch, outputs, strict=True):
                    index = indices[i]
                    _draw(images[index], detections, info, out_dir / names[index])
                    records[index] = _record(
                        paths[index], names[index], images[index], detections, info
                    )
                bar.update(len(batch))
    path = out_dir / "predictions.json"
    write_json(path, [records[index] for index in range(len(paths))])
    num_objects = sum(len(record.get("detections", ())) for record in records.values())
    return Predictions(path, num_objects, tuple(broken))


def _draw(pixels: Tensor, detections: Detections, info: DetectorInfo, path: Path) -> None:
    drawing = draw_detections(
        pixels, detections.boxes, detections.labels, detections.scores, info.class_names
    )
    with replacing(path) as temporary:
        drawing.save(temporary)


def _record(
    path: Path, name: str, pixels: Tensor, detections: Detections, info: DetectorInfo
) -> dict[str, Any]:
    height, width = pixels.shape[-2:]
    return {
        "file": str(path),
        "drawing": name,
        "width": width,
        "height": height,
        "detections": detection_records(detections, info),
    }


def detection_records(detections: Detections, info: DetectorInfo) -> list[dict[str, Any]]:
    """Return the detections of one image as JSON types; see ``predict_files``."""
    rows = zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        strict=True,
    )
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
    """Return a file name for each drawing, numbering those that would be equal."""
    names: list[str] = []
    used: set[str] = set()
    for path in paths:
        name, number = f"{path.stem}.png", 1
        while name in used:
            number += 1
            name = f"{path.stem}-{number}.png"
        used.add(name)
        names.append(name)
    return names
