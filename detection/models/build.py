"""Build a detector from its config."""

from __future__ import annotations

from collections.abc import Callable

from backbone.models.backbone import Backbone
from backbone.models.freezing import freeze_stages
from detection.config import (
    DetectorConfig,
    Detectron2DetectorConfig,
    Detectron2RetinaNetConfig,
    TorchvisionDetectorConfig,
    TorchvisionRetinaNetConfig,
)
from detection.models.detector import Detector


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
            from detection.models.torchvision.retinanet import TorchvisionRetinaNet

            return TorchvisionRetinaNet
        case TorchvisionDetectorConfig():
            from detection.models.torchvision.faster_rcnn import TorchvisionDetector

            return TorchvisionDetector
        case Detectron2RetinaNetConfig():
            from detection.models.detectron2.retinanet import Detectron2RetinaNet

            return Detectron2RetinaNet
        case Detectron2DetectorConfig():
            from detection.models.detectron2.faster_rcnn import Detectron2Detector

            return Detectron2Detector
        case _:
            raise TypeError(f"no engine for {type(config).__name__}")
