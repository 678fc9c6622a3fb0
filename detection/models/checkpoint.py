"""A trained detector as one file that says how to build it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from backbone.models.backbone import rebuild_backbone
from backbone.models.checkpoint import load_tensors, read_weights, save_weights
from detection.config import (
    DetectorConfig,
    Detectron2CascadeConfig,
    Detectron2DetectorConfig,
    Detectron2RetinaNetConfig,
    InferenceConfig,
    TorchvisionDetectorConfig,
    TorchvisionRetinaNetConfig,
)
from detection.data.coco import Category
from detection.models.build import build_detector
from detection.models.detector import Detector

ENGINES: Mapping[str, type[DetectorConfig]] = {
    "torchvision": TorchvisionDetectorConfig,
    "torchvision_retinanet": TorchvisionRetinaNetConfig,
    "detectron2": Detectron2DetectorConfig,
    "detectron2_cascade": Detectron2CascadeConfig,
    "detectron2_retinanet": Detectron2RetinaNetConfig,
}
"""Name of an engine in a file -> the config that chooses it."""


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """What one needs to know to use a detector, beside its weights."""

    config: DetectorConfig
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    """COCO's category id of each class."""
    shortest_side_px: int
    """Images are resized as in training; see ``detection.data.transforms.resize_image``."""
    longest_side_px: int

    @property
    def categories(self) -> tuple[Category, ...]:
        """Ids and names by label."""
        return tuple(map(Category, self.category_ids, self.class_names))


def save_detector(
    path: str | Path,
    detector: Detector,
    info: DetectorInfo,
    *,
    provenance: Mapping[str, Any],
    training_seconds: float,
    evaluations: Mapping[int, float],
) -> None:
    """Write ``detector.safetensors``, whole or not at all.

    Args:
        path: the file.
        detector: its weights.
        info: how to use it.
        provenance: how it was made.
        training_seconds: wall-clock time.
        evaluations: step -> AP in percent, of evaluations while it trained.
    """
    engine = next(name for name, kind in ENGINES.items() if type(info.config) is kind)
    about = {
        "kind": "detector",
        "backbone": detector.backbone.description,
        "levels": list(detector.backbone.out),
        "engine": engine,
        "detector": asdict(info.config),
        "class_names": list(info.class_names),
        "category_ids": list(info.category_ids),
        "shortest_side_px": info.shortest_side_px,
        "longest_side_px": info.longest_side_px,
        "training_seconds": training_seconds,
        "evaluations": {
            str(step): None if math.isnan(ap) else ap for step, ap in evaluations.items()
        },
        "provenance": dict(provenance),
    }
    save_weights(path, detector.state_dict(), about)


def load_detector(
    path: str | Path, *, inference: InferenceConfig | None = None
) -> tuple[Detector, DetectorInfo]:
    """Build a trained detector, in evaluation mode on the CPU.

    Args:
        path: a ``detector.safetensors``.
        inference: its threshold and number of detections take the place of the file's.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, holds something else, or does not fit its description.
        ImportError: if it was trained with detectron2 and that is not installed.
    """
    tensors, about = read_weights(path, kind="detector")
    info = DetectorInfo(
        config=_with_limits(ENGINES[about["engine"]](**about["detector"]), inference),
        class_names=tuple(about["class_names"]),
        category_ids=tuple(about["category_ids"]),
        shortest_side_px=about["shortest_side_px"],
        longest_side_px=about["longest_side_px"],
    )
    backbone = rebuild_backbone(about["backbone"], out=about["levels"])
    detector = build_detector(backbone, num_classes=len(info.class_names), config=info.config)
    load_tensors(detector, tensors, source=path)
    return detector.eval(), info


def _with_limits(config: DetectorConfig, inference: InferenceConfig | None) -> DetectorConfig:
    if inference is None:
        return config
    threshold, most = inference.score_threshold, inference.max_detections
    return replace(
        config,
        score_threshold=config.score_threshold if threshold is None else threshold,
        max_detections=most or config.max_detections,
    )
