"""Entry points for ``torch.hub``.

``torch.hub.load(".", "backbone", "timm:resnet50", source="local")`` in a checkout; each entry point
is a function of the Python API, docs/python.md.
"""

from backbone import build_backbone as backbone
from backbone import pretrain_backbone
from detection import (
    DetectorRecipe,
    Predictor,
    ShapesConfig,
    compare_backbones,
    evaluate,
    make_shapes,
    train_detector,
)
from search import search_cells

__all__ = [
    "backbone",
    "compare_backbones",
    "detector_recipe",
    "evaluate",
    "make_shapes",
    "predictor",
    "pretrain_backbone",
    "search_cells",
    "shapes_config",
    "train_detector",
]

dependencies = ["torch", "torchvision", "timm", "lightning", "safetensors", "hotcoco", "optuna"]

detector_recipe = DetectorRecipe.preset
predictor = Predictor.load
shapes_config = ShapesConfig
