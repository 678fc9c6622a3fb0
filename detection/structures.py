"""Targets and detections of an image, and batches of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE_DIVISOR = 32
"""Batches are padded to multiples of the backbone's greatest stride."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be found in an image."""

    boxes: Tensor
    """(N, 4) float32, xyxy in pixels."""
    labels: Tensor
    """(N,) int64, 0 to K - 1."""


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in an image, best first."""

    boxes: Tensor
    """(N, 4) float32, xyxy in pixels."""
    scores: Tensor
    """(N,) float32, 0 to 1."""
    labels: Tensor
    """(N,) int64, 0 to K - 1."""


def batch_images(images: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Stack images of different sizes, padded with zeros below and to the right.

    Returns:
        (B, 3, H, W) with H and W multiples of 32, and every image's own height and width.
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
