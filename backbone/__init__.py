"""Backbones: architecture in, multi-scale features out.

The names below are imported when they are used, so that ``import backbone`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbone.cells.architecture import Architecture
    from backbone.cells.genotype import Genotype
    from backbone.models.backbone import Backbone, BackboneSpec, build_backbone
    from backbone.training.pretrain import pretrain_backbone

_MODULES = {
    "Architecture": "backbone.cells.architecture",
    "Backbone": "backbone.models.backbone",
    "BackboneSpec": "backbone.models.backbone",
    "Genotype": "backbone.cells.genotype",
    "build_backbone": "backbone.models.backbone",
    "pretrain_backbone": "backbone.training.pretrain",
}

__all__ = [
    "Architecture",
    "Backbone",
    "BackboneSpec",
    "Genotype",
    "build_backbone",
    "pretrain_backbone",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
