"""Detectors on any backbone, on COCO-format data: train, detect, evaluate, compare.

The names below are imported when they are used, so that ``import detection`` loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backbone.io.lazy import lazy_exports

if TYPE_CHECKING:
    from detection.api.evaluation import evaluate
    from detection.api.predictor import ImageDetections, Predictor
    from detection.api.training import compare_backbones, train_detector
    from detection.config import DetectionDataConfig, DetectorRecipe, InferenceConfig
    from detection.data.shapes.config import ShapesConfig
    from detection.data.shapes.dataset import make_shapes
    from detection.engine.train import DetectorResult
    from detection.evaluation.metrics import CocoMetrics
    from detection.evaluation.summary import BackboneResult
    from detection.models.build import build_detector
    from detection.models.checkpoint import load_detector
    from detection.models.config import DetectorConfig
    from detection.models.sizes import sized_detector
    from detection.reward import DetectionReward, DetectionRewardConfig
else:
    _MODULES = {
        "BackboneResult": "detection.evaluation.summary",
        "CocoMetrics": "detection.evaluation.metrics",
        "DetectionDataConfig": "detection.config",
        "DetectionReward": "detection.reward",
        "DetectionRewardConfig": "detection.reward",
        "DetectorConfig": "detection.models.config",
        "DetectorRecipe": "detection.config",
        "DetectorResult": "detection.engine.train",
        "ImageDetections": "detection.api.predictor",
        "InferenceConfig": "detection.config",
        "Predictor": "detection.api.predictor",
        "ShapesConfig": "detection.data.shapes.config",
        "build_detector": "detection.models.build",
        "compare_backbones": "detection.api.training",
        "evaluate": "detection.api.evaluation",
        "load_detector": "detection.models.checkpoint",
        "make_shapes": "detection.data.shapes.dataset",
        "sized_detector": "detection.models.sizes",
        "train_detector": "detection.api.training",
    }
    __getattr__ = lazy_exports(__name__, _MODULES)

__all__ = [
    "BackboneResult",
    "CocoMetrics",
    "DetectionDataConfig",
    "DetectionReward",
    "DetectionRewardConfig",
    "DetectorConfig",
    "DetectorRecipe",
    "DetectorResult",
    "ImageDetections",
    "InferenceConfig",
    "Predictor",
    "ShapesConfig",
    "build_detector",
    "compare_backbones",
    "evaluate",
    "load_detector",
    "make_shapes",
    "sized_detector",
    "train_detector",
]


def __dir__() -> list[str]:
    return __all__
