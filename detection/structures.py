"""Data types that cross the borders between data, models, engine and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE_DIVISOR = 32
"""Batches are padded to multiples of the backbone's greatest stride."""


@dataclass(frozen=True, slots=True)
class Target:
    """Ground-truth objects of one image."""

    boxes: Tensor
    """(N, 4) float32, xyxy in pixels."""
    labels: Tensor
    """(N,) int64, 0 to K - 1."""

    def to(self, device: torch.device) -> Target:
        """Return the target with its tensors on a device."""
        return Target(self.boxes.to(device), self.labels.to(device))


@dataclass(frozen=True, slots=True)
class Detections:
    """Detected objects of one image, by descending score."""

    boxes: Tensor
    """(N, 4) float32, xyxy in pixels."""
    scores: Tensor
    """(N,) float32, 0 to 1."""
    labels: Tensor
    """(N,) int64, 0 to K - 1."""


@dataclass(frozen=True, slots=True)
class DetectionBatch:
    """Images and targets of one training step or one evaluation batch."""

    images: list[Tensor]
    """(3, H, W) float32 in [0, 1] each; sizes may differ."""
    targets: list[Target]
    """Objects in the pixels of ``images``."""
    image_ids: list[int]
    """COCO image ids."""
    original_sizes: list[tuple[int, int]]
    """Height and width of each image file, in pixels."""

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> DetectionBatch:
        """Return the batch with its tensors on a device."""
        return replace(
            self,
            images=[image.to(device) for image in self.images],
            targets=[target.to(device) for target in self.targets],
        )


def batch_images(images: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Stack images of different sizes, zero-padded at the bottom and the right.

    Returns:
        (B, 3, H, W) with H and W multiples of 32, and the height and width of every image.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = (
        -(-max(side) // SIZE_DIVISOR) * SIZE_DIVISOR for side in zip(*sizes, strict=True)
    )
    padded = [
        F.pad(image, (0, width - w, 0, height - h))
        for image, (h, w) in zip(images, sizes, strict=True)
    ]
    return torch.stack(padded).contiguous(memory_format=torch.channels_last), sizes
