"""The one small interface of both detector engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbone.freezing import freeze_stages
from backbone.specs import Backbone
from detection.config import (
    DetectorConfig,
    Detectron2DetectorConfig,
    Detectron2RetinaNetConfig,
    TorchvisionDetectorConfig,
    TorchvisionRetinaNetConfig,
)

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


class Detector(nn.Module, ABC):
    """Images to boxes. Build one with ``build_detector``.

    Images are (3, H, W) float in [0, 1], of any sizes; boxes are in the pixels of the image given.
    """

    backbone: Backbone
    num_classes: int

    @abstractmethod
    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the training losses by name, each of shape (); training mode only."""

    @abstractmethod
    def predict(self, images: Sequence[Tensor]) -> list[Detections]:
        """Return the detections of each image; evaluation mode only."""


def build_detector(backbone: Backbone, *, num_classes: int, config: DetectorConfig) -> Detector:
    """Build a detector with new weights around a backbone.

    Args:
        backbone: gives the maps; every one of its levels is used. Its first stages are frozen if
            the config asks for it.
        num_classes: K, the classes of objects, without background.
        config: its type chooses the engine and the kind of detector.

    Raises:
        ValueError: if the anchors do not fit the backbone's levels, it has not so many stages as
            are to be frozen, or it cannot be split for a detector without a neck.
        ImportError: if the engine is detectron2 and that is not installed.
    """
    if num_classes < 1:
        raise ValueError(f"a detector needs at least 1 class, not {num_classes}")
    levels = len(backbone.out)
    if config.neck == "fpn" and len(config.anchor_sizes) not in (levels, levels + 1):
        raise ValueError(
            f"anchor_sizes needs one size per level, {levels} for {list(backbone.out)} or "
            f"{levels + 1} with a pooled one, not {len(config.anchor_sizes)}"
        )
    freeze_stages(backbone, config.frozen_stages)
    build = _engine(config)
    return build(backbone, num_classes=num_classes, config=config)


def _engine(config: DetectorConfig) -> Callable[..., Detector]:
    match config:
        case TorchvisionRetinaNetConfig():
            from detection.torchvision_retinanet import TorchvisionRetinaNet

            return TorchvisionRetinaNet
        case TorchvisionDetectorConfig():
            from detection.torchvision_engine import TorchvisionDetector

            return TorchvisionDetector
        case Detectron2RetinaNetConfig():
            from detection.detectron2_retinanet import Detectron2RetinaNet

            return Detectron2RetinaNet
        case Detectron2DetectorConfig():
            from detection.detectron2_engine import Detectron2Detector

            return Detectron2Detector
        case _:
            raise TypeError(f"no engine for {type(config).__name__}")


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
