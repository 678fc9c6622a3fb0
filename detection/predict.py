"""Detect in images from disk; write drawn images and JSON."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from backbone.artifacts import replacing, write_json
from backbone.images import IMAGE_SUFFIXES, read_image
from detection.augmentation import resize_image
from detection.detector import Detections, Detector
from detection.drawing import draw_detections
from detection.inference import rescale
from detection.weights import DetectorInfo


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


def predict_images(
    detector: Detector,
    info: DetectorInfo,
    paths: Sequence[Path],
    out_dir: Path,
    *,
    score_threshold: float = 0.5,
    progress: bool = True,
) -> Path:
    """Detect in images; write a drawn PNG for each, and ``predictions.json``.

    Args:
        detector: in evaluation mode.
        info: its classes and the size that it wants images in.
        paths: the images; pictures that would have the same name are numbered.
        out_dir: the folder to write to.
        score_threshold: detections below this score are left out, 0 to 1.
        progress: whether to show a bar.

    Returns:
        The path of ``predictions.json``: a list with, for every image, ``file``, ``drawing``,
        ``width``, ``height`` and ``detections``, best first, each with ``box_xyxy`` in pixels of
        the image, ``score``, ``category_id`` and ``class_name``.

    Raises:
        ValueError: if an image cannot be read, before anything is written for it.
    """
    if not 0 <= score_threshold <= 1:
        raise ValueError(f"score_threshold must be between 0 and 1, not {score_threshold}")
    records = []
    for path, name in zip(
        tqdm(paths, desc="predicting", unit="image", disable=not progress),
        _picture_names(paths),
        strict=True,
    ):
        pixels = read_image(path)
        found = detect(detector, info, pixels, score_threshold=score_threshold)
        drawing = draw_detections(pixels, found.boxes, found.labels, found.scores, info.class_names)
        with replacing(out_dir / name) as temporary:
            drawing.save(temporary)
        records.append(_record(path, name, pixels, found, info))
    write_json(out_dir / "predictions.json", records)
    return out_dir / "predictions.json"


@torch.inference_mode()
def detect(
    detector: Detector, info: DetectorInfo, pixels: Tensor, *, score_threshold: float
) -> Detections:
    """Detect in one image as read, (3, H, W) uint8; boxes are in its own pixels."""
    image, _ = resize_image(pixels, shortest=info.shortest_side_px, longest=info.longest_side_px)
    device = next(detector.parameters()).device
    found = rescale(detector.predict([image.to(device)])[0], image.shape[-2:], pixels.shape[-2:])
    kept = found.scores >= score_threshold
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def _record(
    path: Path, name: str, pixels: Tensor, found: Detections, info: DetectorInfo
) -> dict[str, Any]:
    detections = [
        {
            "box_xyxy": [round(value, 3) for value in box],
            "score": round(score, 6),
            "category_id": info.category_ids[label],
            "class_name": info.class_names[label],
        }
        for box, score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        )
    ]
    height, width = pixels.shape[-2:]
    return {
        "file": str(path),
        "drawing": name,
        "width": width,
        "height": height,
        "detections": detections,
    }


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
