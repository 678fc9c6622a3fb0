"""A backbone in two parts: images to the map at stride 16, and crops of that map to ``c5``.

Faster R-CNN without a pyramid proposes on the first part's map and has the second part as its box
head (Ren et al. 2015; for cells, Zoph et al. 2018, section 4.3, and the released code,
``faster_rcnn_nas_feature_extractor.py`` in TensorFlow's research/object_detection).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbone.io.runtime import hidden_package
from backbone.models.backbone import Backbone, NamedMaps
from backbone.models.cell_network import CellNetwork
from backbone.models.normalization import recomputation

with hidden_package("wandb"):  # timm imports it where it is installed, unasked
    from timm.models._features import FeatureListNet

SPLIT_STRIDE = 16
"""Of the map between the two parts."""


class Halves:
    """Both parts of a backbone; it runs the backbone's own modules and has no weights itself.

    Of cells, the map between them is what the last reduction cell reads: the concatenation of the
    two outputs before it, the older first. Of one of timm's models of stages it is ``c4``.

    Args:
        backbone: is left as it is.

    Raises:
        ValueError: if it has no such two parts.
    """

    channels: int
    """Of the map between the parts."""
    out_channels: int
    """Of the second part's output."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        body = backbone.body
        if isinstance(body, CellNetwork):
            strides = [stride for _, stride in body.before_last_reduction]
            if strides != [SPLIT_STRIDE] * 2:
                raise ValueError(
                    f"{_name(backbone)} cannot be split at stride {SPLIT_STRIDE}: its last "
                    f"reduction reads outputs at strides {strides}"
                )
            self._older_channels = body.before_last_reduction[0][0]
            self.channels = sum(channels for channels, _ in body.before_last_reduction)
            self.out_channels = next(reversed(body.channels.values()))
        elif isinstance(body, NamedMaps) and isinstance(body.model, FeatureListNet):
            channels = dict(zip(body.names, body.model.feature_info.channels(), strict=True))
            if not {"c4", "c5"} <= channels.keys():
                raise ValueError(f"{_name(backbone)} has no maps c4 and c5 to be split between")
            self.channels, self.out_channels = channels["c4"], channels["c5"]
            # Their modules run one after another.
            ends = dict(zip(body.names, body.model.return_layers, strict=True))
            modules = list(body.model)
            split, end = (modules.index(ends[level]) + 1 for level in ("c4", "c5"))
            self._stages = modules[:split], modules[split:end]
        else:
            raise ValueError(
                f"{_name(backbone)} cannot be split at stride {SPLIT_STRIDE}; cells can, and "
                "timm's models that are stages in a row, such as timm:resnet50"
            )

    def run_first(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to (B, channels, H/16, W/16)."""
        backbone, body = self._backbone, self._backbone.body
        pixels = backbone.normalize(images)
        if isinstance(body, CellNetwork):
            return torch.cat(body.run_first_part(pixels), dim=1)
        return self._run_stages(self._stages[0], pixels)

    def run_second(self, crops: Tensor) -> Tensor:
        """Map crops (R, channels, h, w) to (R, out_channels, h/2, w/2), sides rounded up.

        The whole map gives the backbone's ``c5``.
        """
        body = self._backbone.body
        if isinstance(body, CellNetwork):
            older, newer = crops.tensor_split([self._older_channels], dim=1)
            return body.run_second_part(older, newer)
        return self._run_stages(self._stages[1], crops)

    def _run_stages(self, names: Iterable[str], features: Tensor) -> Tensor:
        model: Any = self._backbone.body.model
        saves_memory = model.grad_checkpointing and torch.is_grad_enabled()
        for name in names:
            stage: nn.Module = model[name]
            if saves_memory and isinstance(stage, nn.Sequential):
                context = partial(_recomputation, stage)
                features = checkpoint(stage, features, use_reentrant=False, context_fn=context)
            else:
                features = stage(features)
        return features


def _recomputation(stage: nn.Module) -> tuple[Any, Any]:
    return nullcontext(), recomputation(stage)


def _name(backbone: Backbone) -> str:
    description = backbone.description
    if description["family"] == "cells":
        network = description["network"]
        return f"the network of cells with N = {network['num_cells']}, stem {network['stem']!r}"
    return f"{description['family']}:{description['name']}"
