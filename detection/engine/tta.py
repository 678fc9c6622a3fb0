"""Inference with a trained detector on images as read, with optional test-time augmentation.

Detections of several sizes and flips are merged as in detectron2's ``GeneralizedRCNNWithTTA``: of
overlapping boxes of one class, the best-scored is kept.
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
class AugmentedView:
    """One size, and optionally a horizontal flip, in which an image is shown to the detector."""

    shortest_side_px: int
    longest_side_px: int
    flipped: bool = False


@dataclass(frozen=True, slots=True)
class TestTimeAugmentation:
    """The views of each image, and how their detections are merged."""

    __test__ = False  # its name starts like that of a test

    views: tuple[AugmentedView, ...]
    nms_threshold: float
    """IoU above which a detection is suppressed by a better one of its class."""
    max_detections: int
    score_threshold: float = 0.0
    """Minimum score of a detection, 0 to 1."""

    @classmethod
    def from_config(
        cls, info: DetectorInfo, inference: InferenceConfig | None = None
    ) -> TestTimeAugmentation:
        """Return the views for a trained detector; by default the one it was trained for.

        The limit of the longer side is scaled with the shorter side.
        """
        inference = inference or InferenceConfig()
        sides = list(inference.shortest_sides_px) or [info.shortest_side_px]
        views = tuple(
            AugmentedView(side, round(info.longest_side_px * side / info.shortest_side_px), flipped)
            for side in sides
            for flipped in ((False, True) if inference.horizontal_flip else (False,))
        )
        threshold = inference.score_threshold
        return cls(
            views,
            nms_threshold=info.config.nms_threshold,
            max_detections=inference.max_detections or info.config.max_detections,
            score_threshold=info.config.score_threshold if threshold is None else threshold,
        )


@torch.inference_mode()
def predict_images(
    detector: Detector, images: Sequence[Tensor], tta: TestTimeAugmentation
) -> list[Detections]:
    """Detect objects in images as read.

    Args:
        detector: in evaluation mode.
        images: (3, H, W) uint8 each; if their sizes are equal, the detections of one do not depend
            on the others.
        tta: the views.

    Returns:
        The detections of each image, on the CPU, boxes in its own pixels.
    """
    device = next(detector.parameters()).device
    parts: list[list[Detections]] = [[] for _ in images]
    for view in tta.views:
        resized = [
            resize_image(i, shortest=view.shortest_side_px, longest=view.longest_side_px)[0]
            for i in images
        ]
        inputs = [image.flip(-1) if view.flipped else image for image in resized]
        outputs = detector.predict([image.to(device) for image in inputs])
        for own, detections, small, image in zip(parts, outputs, inputs, images, strict=True):
            own.append(_to_image(detections, small, image, flipped=view.flipped))
    return [_merge(own, tta) for own in parts]


def _to_image(
    detections: Detections, resized: Tensor, image: Tensor, *, flipped: bool
) -> Detections:
    """Map boxes from a view to the pixels of its image."""
    scaled = rescale(detections, resized.shape[-2:], image.shape[-2:])
    if not flipped:
        return scaled
    x1, y1, x2, y2 = scaled.boxes.unbind(1)
    width = image.shape[-1]
    boxes = torch.stack([width - x2, y1, width - x1, y2], dim=1)
    return Detections(boxes, scaled.scores, scaled.labels)


def _merge(parts: Sequence[Detections], tta: TestTimeAugmentation) -> Detections:
    boxes = torch.cat([part.boxes for part in parts])
    scores = torch.cat([part.scores for part in parts])
    labels = torch.cat([part.labels for part in parts])
    kept = torch.arange(len(scores))
    if len(parts) > 1:
        kept = batched_nms(boxes, scores, labels, tta.nms_threshold)
    kept = kept[scores[kept] >= tta.score_threshold][: tta.max_detections]
    return Detections(boxes[kept], scores[kept], labels[kept])


def rescale(
    detections: Detections, size: Sequence[int], original_size: Sequence[int]
) -> Detections:
    """Map boxes from a resized image to the original one; both sizes are (height, width)."""
    scale_y, scale_x = (old / new for old, new in zip(original_size, size, strict=True))
    scale = torch.tensor([scale_x, scale_y, scale_x, scale_y])
    return Detections(
        detections.boxes.cpu() * scale, detections.scores.cpu(), detections.labels.cpu()
    )


def group_batches(keys: Iterable[Hashable], batch_size: int) -> Iterator[list[int]]:
    """Yield batches of indices of equal keys, at most ``batch_size`` each.

    A full batch is yielded at once, incomplete ones at the end.
    """
    pending: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        batch = pending.setdefault(key, [])
        batch.append(index)
        if len(batch) == batch_size:
            yield pending.pop(key)
    yield from pending.values()
