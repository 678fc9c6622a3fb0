"""Trained detectors as files: weights, and the metadata to build the detector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from backbone.io.weights import load_tensors, read_weights, save_weights
from backbone.models.backbone import BackboneSpec
from detection.config import RENAMED_SETTINGS, InferenceConfig
from detection.data.coco import Category
from detection.models.build import build_detector
from detection.models.config import (
    DETECTORS,
    RENAMED_NECKS,
    DetectorConfig,
    FasterRCNNConfig,
    RetinaNetConfig,
    detector_name,
)
from detection.models.detector import Detector


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """Metadata of a trained detector: config, classes and input size."""

    config: DetectorConfig
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    """COCO category id of each class."""
    shortest_side_px: int
    """Images are resized as in training; see ``detection.data.transforms.resize_image``."""
    longest_side_px: int

    @property
    def categories(self) -> tuple[Category, ...]:
        """Category ids and names, indexed by label."""
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
    """Write ``detector.safetensors`` atomically.

    Args:
        path: the file.
        detector: the weights.
        info: the metadata.
        provenance: record of how the detector was made.
        training_seconds: wall-clock time of the training.
        evaluations: step -> AP in percent, of the evaluations during training.
    """
    metadata = {
        "kind": "detector",
        "backbone": detector.backbone.spec.to_dict(),
        "levels": list(detector.backbone.out),
        "engine": detector_name(info.config),
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
    save_weights(path, detector.state_dict(), metadata)


def load_detector(
    path: str | Path, *, inference: InferenceConfig | None = None
) -> tuple[Detector, DetectorInfo]:
    """Load a trained detector, in evaluation mode on the CPU.

    Args:
        path: a ``detector.safetensors``.
        inference: its score threshold and maximum number of detections replace those of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, is not a detector, or its weights do not fit its metadata.
        ImportError: if it was trained with detectron2 and that is not installed.
    """
    tensors, metadata = read_weights(path, kind="detector")
    config = _read_config(metadata["engine"], metadata["detector"], source=path)
    info = DetectorInfo(
        config=_with_limits(config, inference),
        class_names=tuple(metadata["class_names"]),
        category_ids=tuple(metadata["category_ids"]),
        shortest_side_px=metadata["shortest_side_px"],
        longest_side_px=metadata["longest_side_px"],
    )
    backbone = BackboneSpec.from_dict(metadata["backbone"]).build(out=metadata["levels"])
    detector = build_detector(backbone, num_classes=len(info.class_names), config=info.config)
    load_tensors(detector, tensors, source=path)
    return detector.eval(), info


def _read_config(name: str, settings: Mapping[str, Any], *, source: str | Path) -> DetectorConfig:
    """Return the config that a file holds, possibly under former names of settings."""
    if name not in DETECTORS:
        raise ValueError(f"{source}: unknown detector {name!r}; choose from {sorted(DETECTORS)}")
    config_type = DETECTORS[name].config
    renamed = dict(RENAMED_SETTINGS)
    is_retinanet = issubclass(config_type, RetinaNetConfig)
    if is_retinanet:
        renamed["rpn_candidates_test"] = "topk_candidates"
    values = {renamed.get(key, key): value for key, value in settings.items()}
    if values.get("neck") in RENAMED_NECKS:
        values["neck"] = RENAMED_NECKS[values["neck"]]
    known = {each.name for each in fields(config_type)}
    # Files of RetinaNet used to hold all settings of Faster R-CNN.
    former = {each.name for each in fields(FasterRCNNConfig)} if is_retinanet else set()
    unknown = sorted(set(values) - known - former)
    if unknown:
        raise ValueError(f"{source}: detector {name} has no settings {unknown}")
    config: DetectorConfig = config_type(**{k: v for k, v in values.items() if k in known})
    return config


def _with_limits(config: DetectorConfig, inference: InferenceConfig | None) -> DetectorConfig:
    if inference is None:
        return config
    threshold, limit = inference.score_threshold, inference.max_detections
    return replace(
        config,
        score_threshold=config.score_threshold if threshold is None else threshold,
        max_detections=limit or config.max_detections,
    )
