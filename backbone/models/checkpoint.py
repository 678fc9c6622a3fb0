"""Pretrained backbones as ``backbone.safetensors`` files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from backbone.io.weights import save_weights
from backbone.models.backbone import BACKBONE_KIND, BACKBONE_PREFIX, Backbone, BackboneSpec

HEAD_PREFIX = "head."


def save_backbone(
    path: str | Path,
    backbone: Backbone,
    head: nn.Module | None = None,
    *,
    classes: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    provenance: Mapping[str, Any],
) -> None:
    """Write a backbone and, if there is one, its classification head.

    Args:
        path: the ``.safetensors`` file.
        backbone: the backbone.
        head: the linear layer of its classifier.
        classes: names of the head's classes.
        metrics: results of the pretraining by name.
        provenance: record of how the weights were made.
    """
    tensors = {BACKBONE_PREFIX + n: t for n, t in backbone.state_dict().items()}
    if head is not None:
        tensors |= {HEAD_PREFIX + n: t for n, t in head.state_dict().items()}
    metadata = {
        "kind": BACKBONE_KIND,
        "backbone": backbone.spec.to_dict(),
        "classes": list(classes),
        "metrics": dict(metrics or {}),
        "provenance": dict(provenance),
    }
    save_weights(path, tensors, metadata)


def load_backbone(path: str | Path, *, out: Sequence[str] | None = None) -> Backbone:
    """Build the backbone of a ``backbone.safetensors`` with its weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, of another kind, or its tensors do not fit its spec.
    """
    return BackboneSpec.from_file(path).build(out=out)
