"""One string names any backbone: cells at N @ F, a trained file, timm's or torchvision's models.

nasnet_a:4@1056                      published cells
runs/search/cells.json:2@96          cells that a search wrote
runs/pretrain/backbone.safetensors   a trained backbone, with its weights
timm:resnet50                        any timm model that gives feature maps
torchvision:resnet50                 likewise
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.transforms.v2.functional import rgb_to_grayscale

from backbone.cells.genotype import Genotype
from backbone.cells.published import CONVENTIONS, PUBLISHED
from backbone.config import MIN_SIDE_PX
from backbone.io.runtime import hidden_package
from backbone.models.cell_network import CellNetwork, NetworkConfig, first_filters
from backbone.models.normalization import NORMS, convert_norm

with hidden_package("wandb"):  # timm imports it where it is installed, unasked
    import timm
    from timm.data.config import resolve_model_data_config

LEVELS = ("c2", "c3", "c4", "c5")
"""Names of the maps at strides 4, 8, 16 and 32."""
SPEC_FORMS = (
    "'nasnet_a:4@1056', 'path/cells.json:2@96', 'path/backbone.safetensors', "
    "'timm:resnet50', 'torchvision:resnet50'"
)
HALF = (0.5, 0.5, 0.5)
LARGE_FILTERS = 2000
"""From this F on a network is built with the paper's large conventions (6 @ 4032: a stem of 96
filters, skipped reduction inputs), below with its mobile ones (4 @ 1056: 32 filters, none). In a
network narrower than any of the paper's the stem is as wide as the first stack's cells, since it
would cost more than all else."""


class Backbone(nn.Module):
    """Images to feature maps.

    Shape:
        - images: (B, 3, H, W) in [0, 1]; H and W at least 32
        - output: ``{"c2": (B, C2, H/4, W/4), ..., "c5": (B, C5, H/32, W/32)}``; exact where the
          sides are multiples of 32, at most one row or column off elsewhere
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        description: Mapping[str, Any],
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        mean: Sequence[float] = HALF,
        std: Sequence[float] = HALF,
        out: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        out = tuple(channels) if out is None else out
        missing = [level for level in out if level not in channels]
        if missing:
            raise ValueError(f"this backbone has no maps {missing}; it has {sorted(channels)}")
        self.body = body
        self.description = dict(description)
        """How to build this backbone again, as JSON's types; see ``rebuild_backbone``."""
        self.out = tuple(out)
        self.channels = {level: channels[level] for level in out}
        self.strides = {level: strides[level] for level in out}
        self.mean, self.std = tuple(mean), tuple(std)
        self.grayscale = bool(description.get("grayscale", False))
        """Whether images lose their colours first (ITU-R BT.601 luma in all three channels)."""
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.body(self.normalize(images))
        return {level: maps[level] for level in self.out}

    def normalize(self, images: Tensor) -> Tensor:
        """Bring images, (B, 3, H, W) in [0, 1], to what the body's weights expect."""
        if min(images.shape[-2:]) < MIN_SIDE_PX:
            raise ValueError(
                f"images must be at least {MIN_SIDE_PX} pixels high and wide, "
                f"not {tuple(images.shape[-2:])}"
            )
        if self.grayscale:
            images = rgb_to_grayscale(images, num_output_channels=3)
        return (images - self._mean) / self._std

    def map_sides(self, side_px: int) -> dict[str, int]:
        """Return the side of every map for a square image, without computing anything."""
        twin = unbuilt(self.description, out=self.out)
        maps = twin(torch.empty(1, 3, side_px, side_px, device="meta"))
        return {level: m.shape[-1] for level, m in maps.items()}

    def checkpoint_activations(self) -> None:
        """Let training keep few activations and compute the rest again for the gradient.

        Gradients stay the same, for less memory and more time. Cells keep their outputs only, and
        their running statistics stay the same too. timm's models do what they can; the statistics
        inside what they compute twice move twice.

        Raises:
            ValueError: if this backbone cannot.
        """
        if isinstance(self.body, CellNetwork):
            self.body.checkpoints_cells = True
            return
        model = getattr(self.body, "model", None)
        try:
            model.set_grad_checkpointing(enable=True)  # type: ignore[union-attr]
        except (AttributeError, AssertionError):
            name = f"{self.description['family']}:{self.description['name']}"
            raise ValueError(f"{name} cannot save memory by activation checkpointing") from None


def build_backbone(
    spec: str,
    *,
    pretrained: bool = False,
    norm: str = "batch",
    grayscale: bool = False,
    stem: str = "imagenet",
    out: Sequence[str] | None = None,
) -> Backbone:
    """Build the backbone that a spec names.

    Args:
        spec: see this module's docstring.
        pretrained: load timm's or torchvision's released weights, which downloads them. A
            ``.safetensors`` spec always comes with its weights.
        norm: ``batch``; ``frozen``: batch normalization that keeps its statistics, scale and shift;
            ``sync``: over all processes of a training; ``group``: group normalization, for a new
            backbone. See ``backbone.models.normalization.convert_norm``.
        grayscale: take the colours out of images first, where they tell nothing. A
            ``.safetensors`` spec sees what it was trained to see, whatever this says.
        stem: of cells: ``imagenet``, or ``cifar``, which keeps the size of small images and gives
            maps ``c0`` to ``c2``. A ``.safetensors`` spec keeps its own.
        out: names of the maps wanted; all there are by default, ``c2`` to ``c5`` of most.

    Raises:
        ValueError: if the spec names nothing, with what is near it; if norm or stem do not fit it;
            if F does not divide; if a file is damaged or holds something else; if released weights
            are asked for where there are none.
        FileNotFoundError: if a spec's file does not exist.
    """
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; choose from {NORMS}")
    path = Path(spec)
    if path.suffix == ".safetensors":
        from backbone.models.checkpoint import load_backbone  # weights builds on this module

        backbone = load_backbone(path, out=out)
        if (norm == "group") != (backbone.description.get("norm") == "group"):
            raise ValueError(f"{path} was trained with another kind of normalization than {norm!r}")
    else:
        group = {"norm": norm} if norm == "group" else {}
        description = describe_spec(spec, grayscale=grayscale, stem=stem) | group
        backbone = rebuild_backbone(description, pretrained=pretrained, out=out)
    if norm in ("frozen", "sync"):
        # Their tensors are batch normalization's, so the description need not tell.
        backbone.body = convert_norm(backbone.body, norm)
    return backbone


def describe_spec(spec: str, *, grayscale: bool = False, stem: str = "imagenet") -> dict[str, Any]:
    """Return what ``rebuild_backbone`` needs to build a spec's backbone, as JSON's types.

    A file's contents take the place of its name, so that the description stands alone.

    Raises:
        ValueError: if the spec names nothing.
        FileNotFoundError: if its ``cells.json`` does not exist.
    """
    images = {"grayscale": True} if grayscale else {}
    family, _, name = spec.partition(":")
    if family in ("timm", "torchvision") and name:
        if stem != "imagenet":
            raise ValueError(f"only cells can have another stem, not {spec!r}")
        return {"family": family, "name": name, **images}
    match = re.fullmatch(r"(?P<cells>.+):(?P<n>\d+)@(?P<f>\d+)", spec)
    if match is None:
        near = difflib.get_close_matches(family, [*PUBLISHED, "timm", "torchvision"], n=1)
        hint = f"; did you mean {near[0]!r}?" if near and near[0] != family else "."
        if family in PUBLISHED:
            hint = f": published cells need their size, N @ F, as in '{family}:2@384'."
        raise ValueError(f"unknown backbone spec {spec!r}{hint} Specs look like {SPEC_FORMS}")
    cells = match["cells"]
    genotype = PUBLISHED.get(cells)
    if genotype is None:
        if not cells.endswith(".json"):
            near = difflib.get_close_matches(cells, PUBLISHED, n=1) or sorted(PUBLISHED)
            raise ValueError(
                f"unknown cells {cells!r} in backbone spec {spec!r}; near it is {near}. "
                f"Specs look like {SPEC_FORMS}"
            )
        genotype = Genotype.load(cells)
    return describe_cells(
        genotype,
        num_cells=int(match["n"]),
        filters=int(match["f"]),
        stem=stem,
        grayscale=grayscale,
        conventions=CONVENTIONS.get(cells),
    )


def describe_cells(
    genotype: Genotype,
    *,
    num_cells: int,
    filters: int,
    stem: str = "imagenet",
    grayscale: bool = False,
    conventions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what ``rebuild_backbone`` needs to build cells at N @ F, as JSON's types.

    Args:
        genotype: the cells.
        num_cells: N.
        filters: F.
        stem: ``imagenet`` or ``cifar``.
        grayscale: whether the backbone takes the colours out of images.
        conventions: members of ``NetworkConfig`` that differ from what is usual at that size.

    Raises:
        ValueError: if F does not divide, N is below 1, or there is no such stem.
    """
    large = filters >= LARGE_FILTERS
    usual = {
        "stem": stem,
        "stem_filters": 96 if large else min(first_filters(genotype, filters), 32),
        "skip_reduction_input": large,
    }
    network: dict[str, Any] = {"num_cells": num_cells, "filters": filters, **usual}
    return {
        "family": "cells",
        "genotype": genotype.to_dict(),
        "network": NetworkConfig(**network | dict(conventions or {})).to_dict(),
        **({"grayscale": True} if grayscale else {}),
    }


def describe_source(spec: str, *, stem: str = "imagenet") -> dict[str, Any]:
    """Return the description of any spec's backbone, that of a ``.safetensors`` file too.

    Raises:
        ValueError, FileNotFoundError: as ``build_backbone``.
    """
    if not spec.endswith(".safetensors"):
        return describe_spec(spec, stem=stem)
    from backbone.models.checkpoint import read_about  # weights builds on this module

    description: dict[str, Any] = read_about(spec, kind="backbone")["backbone"]
    return description


def rebuild_backbone(
    description: Mapping[str, Any],
    *,
    pretrained: bool = False,
    out: Sequence[str] | None = None,
) -> Backbone:
    """Build a backbone from a description, with new weights unless ``pretrained``.

    Raises:
        ValueError: if the description is not one, or there are no released weights.
    """
    builders = {"cells": _build_cells, "timm": _build_timm, "torchvision": _build_torchvision}
    family = description.get("family")
    if family not in builders:
        raise ValueError(f"unknown family of backbones {family!r}")
    norm = description.get("norm", "batch")
    if pretrained and norm != "batch":
        raise ValueError("released weights are for batch normalization")
    backbone = builders[family](description, pretrained=pretrained, out=out)
    backbone.body = convert_norm(backbone.body, norm)
    return backbone


def unbuilt(description: Mapping[str, Any], *, out: Sequence[str] | None = None) -> Backbone:
    """Return a backbone without weights, on torch's meta device: shapes and costs, no work."""
    with torch.device("meta"):
        return rebuild_backbone(description, out=out).eval()


def _build_cells(
    description: Mapping[str, Any], *, pretrained: bool, out: Sequence[str] | None
) -> Backbone:
    if pretrained:
        raise ValueError(
            "cells come with no released weights; pretrain them and give the .safetensors as spec"
        )
    genotype = Genotype.from_dict(description.get("genotype"))
    network = CellNetwork(genotype, NetworkConfig(**description["network"]))
    return Backbone(
        network,
        description=description,
        channels=network.channels,
        strides=network.strides,
        out=out,
    )


def _build_timm(
    description: Mapping[str, Any], *, pretrained: bool, out: Sequence[str] | None
) -> Backbone:
    name = description["name"]
    try:
        probe = timm.create_model(name, features_only=True, pretrained=False)
    except RuntimeError as error:
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(
            f"timm has no backbone {name!r} that gives feature maps; near it are {near}"
        ) from error
    info: Any = probe.feature_info
    strides = info.reduction()
    indices = {f"c{s.bit_length() - 1}": i for i, s in enumerate(strides) if s in (4, 8, 16, 32)}
    model = timm.create_model(
        name, features_only=True, pretrained=pretrained, out_indices=tuple(indices.values())
    )
    settings = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    info = model.feature_info
    channels = info.channels()
    return Backbone(
        NamedMaps(model, tuple(indices)),
        description=description,
        channels=dict(zip(indices, channels, strict=True)),
        strides={level: strides[i] for level, i in indices.items()},
        mean=settings["mean"],
        std=settings["std"],
        out=out,
    )


class NamedMaps(nn.Module):
    """Name the maps that a model returns as a list."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.model(images), strict=True))


def _build_torchvision(
    description: Mapping[str, Any], *, pretrained: bool, out: Sequence[str] | None
) -> Backbone:
    name = description["name"]
    if name not in torchvision.models.list_models(module=torchvision.models):
        near = difflib.get_close_matches(name, torchvision.models.list_models(), n=3)
        raise ValueError(f"torchvision has no classification model {name!r}; near it are {near}")
    model = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)
    nodes = _last_nodes_by_stride(model)
    body = create_feature_extractor(model, {node: level for level, node in nodes.items()})
    body.eval()
    with torch.no_grad():
        maps = body(torch.zeros(1, 3, 64, 64))
    return Backbone(
        body.train(),
        description=description,
        channels={level: maps[level].shape[1] for level in nodes},
        strides={level: 64 // maps[level].shape[2] for level in nodes},
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        out=out,
    )


def _last_nodes_by_stride(model: nn.Module) -> dict[str, str]:
    """Return the last node that gives a map at each of the strides 4, 8, 16 and 32."""
    names = get_graph_node_names(model)[1]
    side = 256
    extractor = create_feature_extractor(model, names).eval()
    with torch.no_grad():
        values = extractor(torch.zeros(1, 3, side, side))
    nodes: dict[str, str] = {}
    for name in names:
        value = values[name]
        if isinstance(value, Tensor) and value.ndim == 4:
            for exponent, level in enumerate(LEVELS, start=2):
                if value.shape[2] == value.shape[3] == side >> exponent:
                    nodes[level] = name
    if not nodes:
        raise ValueError(f"{type(model).__name__} gives no maps at strides 4 to 32")
    return nodes
