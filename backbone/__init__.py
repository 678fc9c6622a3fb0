"""Backbones: architecture in, multi-scale features out.

The names below are imported when they are used, so that ``import backbone`` loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backbone.io.lazy import lazy_exports

if TYPE_CHECKING:
    from backbone.api import pretrain_backbone
    from backbone.cells.architecture import Architecture
    from backbone.cells.genotype import Genotype
    from backbone.cells.published import PUBLISHED
    from backbone.config import ClassifierRecipe
    from backbone.models.backbone import Backbone, BackboneSpec, build_backbone
    from backbone.training.pretrain import PretrainResult
else:
    _MODULES = {
        "Architecture": "backbone.cells.architecture",
        "Backbone": "backbone.models.backbone",
        "BackboneSpec": "backbone.models.backbone",
        "ClassifierRecipe": "backbone.config",
        "Genotype": "backbone.cells.genotype",
        "PUBLISHED": "backbone.cells.published",
        "PretrainResult": "backbone.training.pretrain",
        "build_backbone": "backbone.models.backbone",
        "pretrain_backbone": "backbone.api",
    }
    __getattr__ = lazy_exports(__name__, _MODULES)

__all__ = [
    "PUBLISHED",
    "Architecture",
    "Backbone",
    "BackboneSpec",
    "ClassifierRecipe",
    "Genotype",
    "PretrainResult",
    "build_backbone",
    "pretrain_backbone",
]


def __dir__() -> list[str]:
    return __all__
