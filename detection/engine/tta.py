"""A trained detector on images as they are: in one size, or in several and mirrored.

What is found in all views is put together as detectron2's ``GeneralizedRCNNWithTTA`` does: of boxes
of one class that overlap, the surest stays.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detection.config import InferenceConfig
from detection.data.transforms import resize_image
from detection.models.checkpoint import DetectorInfo
from detection.models.detector import Detector
from detection.structures import Detections


@dataclass(frozen=True, slots=True)
class View:
    """One way to look at an image."""

    shortest_side_px: int
    longest_side_px: int
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Vision:
    """All views, and how what is found in them is put together."""

    views: tuple[View, ...]
    nms_threshold: float
    """Of two boxes of a class that overlap by more than this IoU the surer one stays."""
    max_detections: int
    score_threshold: float = 0.0
    """Detections below this score are dropped, 0 to 1."""

    @classmethod
    def of(cls, info: DetectorInfo, inference: InferenceConfig | None = None) -> Vision:
        """Return the views of a trained detector: by default the one that it was trained for.

        The limit of the longer side grows and shrinks with the shorter one.
        """
        inference = inference or InferenceConfig()
        sides = list(inference.shortest_sides_px) or [info.shortest_side_px]
        views = tuple(
            View(side, round(info.longest_side_px * side / info.shortest_side_px), mirrored)
            for side in sides
            for mirrored in ((False, True) if inference.horizontal_flip else (False,))
        )
        threshold = inference.score_threshold
        return cls(
            views,
            nms_threshold=info.config.nms_threshold,
            max_detections=inference.max_detections or info.config.max_detections,
            score_threshold=info.config.score_threshold if threshold is None else threshold,
        )


@torch.inference_mode()
def detect_in_pixels(
    detector: Detector, images: Sequence[Tensor], vision: Vision
) -> list[Detections]:
    """Detect in images as read.

    Args:
        detector: in evaluation mode.
        images: (3, H, W) uint8 each; of equal sizes, no image's detections depend on the others.
        vision: the views.

    Returns:
        Detections of each image, on the CPU, boxes in its own pixels.
    """
    device = next(detector.parameters()).device
    found: list[list[Detections]] = [[] for _ in images]
    for view in vision.views:
        resized = [
            resize_image(i, shortest=view.shortest_side_px, longest=view.longest_side_px)[0]
            for i in images
        ]
        shown = [image.flip(-1) if view.mirrored else image for image in resized]
        detected = detector.predict([image.to(device) for image in shown])
        for mine, detections, small, image in zip(found, detected, shown, images, strict=True):
            mine.append(_in_image(detections, small, image, mirrored=view.mirrored))
    return [_together(parts, vision) for parts in found]


def _in_image(
    detections: Detections, shown: Tensor, image: Tensor, *, mirrored: bool
) -> Detections:
    whole = rescale(detections, shown.shape[-2:], image.shape[-2:])
    if not mirrored:
        return whole
    x1, y1, x2, y2 = whole.boxes.unbind(1)
    width = image.shape[-1]
    boxes = torch.stack([width - x2, y1, width - x1, y2], dim=1)
    return Detections(boxes, whole.scores, whole.labels)


def _together(parts: Sequence[Detections], vision: Vision) -> Detections:
    boxes = torch.cat([part.boxes for part in parts])
    scores = torch.cat([part.scores for part in parts])
    labels = torch.cat([part.labels for part in parts])
    kept = torch.arange(len(scores))
    if len(parts) > 1:
        kept = batched_nms(boxes, scores, labels, vision.nms_threshold)
    kept = kept[scores[kept] >= vision.score_threshold][: vision.max_detections]
    return Detections(boxes[kept], scores[kept], labels[kept])


def rescale(
    detections: Detections, size: Sequence[int], original_size: Sequence[int]
) -> Detections:
    """Bring boxes from the resized image, (height, width), to the original one's pixels."""
    scale_y, scale_x = (old / new for old, new in zip(original_size, size, strict=True))
    scale = torch.tensor([scale_x, scale_y, scale_x, scale_y])
    return Detections(
        detections.boxes.cpu() * scale, detections.scores.cpu(), detections.labels.cpu()
    )


def batches_of_equals(kinds: Iterable[Hashable], batch_size: int) -> Iterator[list[int]]:
    """Yield the places of things of equal kind, at most ``batch_size`` at a time.

    A full batch comes as soon as it is; what is left comes at the end.
    """
    waiting: dict[Hashable, list[int]] = {}
    for place, kind in enumerate(kinds):
        batch = waiting.setdefault(kind, [])
        batch.append(place)
        if len(batch) == batch_size:
            yield waiting.pop(kind)
    yield from waiting.values()
