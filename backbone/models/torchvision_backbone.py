"""Backbones of torchvision: its classification models, cut where each stride ends."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from backbone.models.backbone import Backbone, LibraryBackboneSpec, released_weights
from backbone.models.measurement import (
    DEVICES,
    MapShape,
    deepest_maps,
    measure_maps,
    measuring,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionBackboneSpec(LibraryBackboneSpec):
    """A classification model of torchvision, without its head."""

    family: ClassVar[str] = "torchvision"

    def _build(self, *, pretrained: bool, out: Sequence[str] | None) -> TorchvisionBackbone:
        maps = measure_model(self.name)
        with released_weights(self, pretrained=pretrained):
            model = create_model(self.name, pretrained=pretrained)
        body = _extractor(model, {node: level for level, (node, _) in maps.items()})
        return TorchvisionBackbone(
            body.train(),
            spec=self,
            maps={level: shape for level, (_, shape) in maps.items()},
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            out=out,
        )


class TorchvisionBackbone(Backbone):
    """A classification model of torchvision as a backbone."""


@cache
def measure_model(name: str) -> dict[str, tuple[str, MapShape]]:
    """Return the last node at each stride of a model's graph and its shape; once per process.

    Raises:
        ValueError: if torchvision has no such model, or it has no maps at strides 4, 8, 16 or 32
            for images of any size.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        raise ValueError(
            f"torchvision has no classification model {name!r}; close matches are {near}"
        )
    problem = ""
    for device in DEVICES:
        try:
            with measuring(device):
                model = create_model(name, pretrained=False)
                nodes = get_graph_node_names(model, suppress_diff_warning=True)[1]
                extractor = _extractor(model, {node: node for node in nodes}).eval()
            maps = deepest_maps(measure_maps(extractor.to("meta")))
        except Exception as error:  # models raise anything where they fail
            problem = problem or str(error).partition("\n")[0] or type(error).__name__
            continue
        return maps
    raise ValueError(
        f"torchvision:{name} gives no feature maps at strides 4, 8, 16 or 32 for images of any "
        f"size ({problem}); choose another model, such as torchvision:resnet50"
    )


def _extractor(model: nn.Module, nodes: Mapping[str, str]) -> nn.Module:
    """Return a model's outputs at some nodes of its graph, under other names."""
    # Auxiliary heads, such as GoogLeNet's, are in the training graph only; no map is theirs.
    extractor: nn.Module = create_feature_extractor(model, dict(nodes), suppress_diff_warning=True)
    return extractor


def create_model(name: str, *, pretrained: bool) -> nn.Module:
    """Create a classification model with released weights, or with random ones."""
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce that their initialization may change.
        warnings.simplefilter("ignore", FutureWarning)
        model: nn.Module = torchvision.models.get_model(
            name, weights="DEFAULT" if pretrained else None
        )
    return model
