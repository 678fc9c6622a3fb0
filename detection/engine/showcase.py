"""A picture of what a detector finds in a few images."""

from __future__ import annotations

from pathlib import Path

from backbone.io.files import replacing
from backbone.training.images import read_image
from detection.data.dataset import CocoDataset
from detection.engine.predict import detect
from detection.engine.visualize import contact_sheet, draw_detections
from detection.models.checkpoint import load_detector


def draw_showcase(
    detector_path: Path,
    val: CocoDataset,
    path: Path,
    *,
    num_images: int = 8,
    score_threshold: float = 0.5,
) -> Path:
    """Draw the detections in the first validation images that have objects.

    Args:
        detector_path: a ``detector.safetensors``.
        val: the validation images.
        path: the picture, PNG; written whole or not at all.
        num_images: how many, four to a row.
        score_threshold: detections below this score are not drawn, 0 to 1.

    Returns:
        ``path``.
    """
    detector, info = load_detector(detector_path)
    chosen = [i for i in range(len(val)) if len(val.annotations.boxes_of(i))][:num_images]
    pictures = []
    for index in chosen:
        record = val.annotations.images[index]
        pixels = read_image(val.image_root / record.file_name, size=(record.width, record.height))
        found = detect(detector, info, pixels, score_threshold=score_threshold)
        pictures.append(
            draw_detections(pixels, found.boxes, found.labels, found.scores, info.class_names)
        )
    with replacing(path) as temporary:
        contact_sheet(pictures, columns=4).save(temporary)
    return path
