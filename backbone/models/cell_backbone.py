"""Backbones of cells: a genotype stacked at N @ F."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from backbone.cells.architecture import Architecture
from backbone.cells.genotype import Genotype
from backbone.cells.published import CONVENTIONS, PUBLISHED
from backbone.io.text_tables import text_table
from backbone.models.backbone import (
    FAMILIES,
    SPLIT_STRIDE,
    Backbone,
    BackboneSpec,
    C4Split,
    shape_text,
)
from backbone.models.cell_network import CellNetwork, NetworkConfig, first_filters
from backbone.models.freezing import check_num_stages
from backbone.models.measurement import MapShape

SPEC_FORMS = (
    "'nasnet_a:4@1056', 'path/cells.json:2@96', 'path/backbone.safetensors', "
    "'timm:resnet50', 'torchvision:resnet50'"
)
LARGE_FILTERS = 2000
"""From this F on a network is built with the paper's large conventions (6 @ 4032: a stem of 96
filters, skipped reduction inputs), below with its mobile ones (4 @ 1056: 32 filters, none). In a
network narrower than any of the paper's the stem is as wide as the first stack's cells, since it
would cost more than all the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellBackboneSpec(BackboneSpec):
    """Cells at N @ F."""

    family: ClassVar[str] = "cells"

    genotype: Genotype
    network: NetworkConfig

    @property
    def architecture(self) -> Genotype:
        return self.genotype

    @classmethod
    def _parse(cls, text: str, *, stem: str) -> Self:
        match = re.fullmatch(r"(?P<cells>.+):(?P<n>\d+)@(?P<f>\d+)", text)
        if match is None:
            raise ValueError(_unknown_spec(text))
        cells = match["cells"]
        genotype = PUBLISHED.get(cells)
        if genotype is None:
            if not cells.endswith(".json"):
                near = difflib.get_close_matches(cells, PUBLISHED, n=1) or sorted(PUBLISHED)
                raise ValueError(
                    f"unknown cells {cells!r} in backbone spec {text!r}; close matches are "
                    f"{near}. Specs look like {SPEC_FORMS}"
                )
            genotype = Genotype.load(cells)
        size = {"num_cells": int(match["n"]), "filters": int(match["f"])}
        return cls._of_genotype(genotype, size, stem=stem, conventions=CONVENTIONS.get(cells))

    @classmethod
    def _from_architecture(
        cls, architecture: Architecture, size: Mapping[str, int], *, stem: str
    ) -> Self:
        if not isinstance(architecture, Genotype):
            raise ValueError(
                f"cells are built from a Genotype, not a {type(architecture).__name__}"
            )
        if "depth" in size:
            filters = architecture.penultimate_filters(size["width"])
            size = {"num_cells": size["depth"], "filters": filters}
        return cls._of_genotype(architecture, size, stem=stem)

    @classmethod
    def _of_genotype(
        cls,
        genotype: Genotype,
        size: Mapping[str, int],
        *,
        stem: str,
        conventions: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the spec with the conventions usual at a size, unless others are given."""
        is_large = size["filters"] >= LARGE_FILTERS
        width = first_filters(genotype, size["filters"])
        network: dict[str, Any] = {
            **size,
            "stem": stem,
            "stem_filters": 96 if is_large else min(width, 32),
            "skip_reduction_input": is_large,
            **(conventions or {}),
        }
        return cls(genotype=genotype, network=NetworkConfig(**network))

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> Self:
        genotype = Genotype.from_dict(data.get("genotype"))
        return cls(genotype=genotype, network=NetworkConfig(**data["network"]))

    def _members(self) -> dict[str, Any]:
        return {"genotype": self.genotype.to_dict(), "network": self.network.to_dict()}

    def _build(self, *, pretrained: bool, out: Sequence[str] | None) -> CellBackbone:
        if pretrained:
            raise ValueError(
                "cells have no released weights; pretrain them and use the .safetensors as spec"
            )
        network = CellNetwork(self.genotype, self.network)
        maps = {k: MapShape(network.channels[k], network.strides[k]) for k in network.channels}
        return CellBackbone(network, spec=self, maps=maps, out=out)

    def __str__(self) -> str:
        return f"the network of cells with N = {self.network.num_cells}, stem {self.network.stem!r}"


def _unknown_spec(text: str) -> str:
    prefix = text.partition(":")[0]
    near = difflib.get_close_matches(prefix, [*PUBLISHED, *FAMILIES], n=1)
    hint = f"; did you mean {near[0]!r}?" if near and near[0] != prefix else "."
    if prefix in PUBLISHED:
        hint = f": published cells need their size, N @ F, as in '{prefix}:2@384'."
    return f"unknown backbone spec {text!r}{hint} Specs look like {SPEC_FORMS}"


class CellBackbone(Backbone):
    """A ``CellNetwork`` as a backbone."""

    body: CellNetwork

    def checkpoint_activations(self) -> None:
        """Keep the cells' outputs only; gradients and running statistics stay the same."""
        self.body.checkpoints_cells = True

    def schedule_drop_path(self, *, keep: float, progress: float) -> None:
        self.body.schedule_drop_path(keep=keep, progress=progress)

    def _stage_parameters(self, num_stages: int) -> set[int]:
        body = self.body
        ends = [index + 1 for index, step in enumerate(body.plan) if step.tapped]
        check_num_stages(num_stages, last=len(ends) + 1)
        parts = [body.stem, *body.cells[: ends[num_stages - 2] if num_stages > 1 else 0]]
        return {id(p) for part in parts for p in part.parameters()}

    def c4_split(self) -> CellC4Split:
        return CellC4Split(self)

    def summary(self, *, side_px: int) -> str:
        """Return a table of the stages: cells, output shape, parameters, name of the map.

        Consecutive cells of one kind and shape share a line.
        """
        twin = self.spec.build_meta(out=self.out)
        images = torch.empty(1, 3, side_px, side_px, device="meta")
        assert isinstance(twin, CellBackbone)
        header = ("stage", "output", "parameters", "map")
        return text_table(header, list(_stage_rows(twin, images)))


def _stage_rows(backbone: CellBackbone, images: Tensor) -> Iterator[tuple[str, str, str, str]]:
    body = backbone.body
    outputs: list[tuple[nn.Module, Tensor]] = []
    parts = [body.stem, *body.cells]
    hooks = [
        part.register_forward_hook(lambda module, _, output: outputs.append((module, output)))
        for part in parts
    ]
    backbone(images)
    for hook in hooks:
        hook.remove()
    levels = iter(body.channels)
    kinds = ["stem convolution"] + [
        f"{'reduction' if step.reduces else 'normal'} cell, {step.filters} filters"
        for step in body.plan
    ]
    names = [""] + [next(levels) if step.tapped else "" for step in body.plan]
    rows = [
        (kind, shape_text(output), sum(p.numel() for p in part.parameters()), name)
        for kind, (part, output), name in zip(kinds, outputs, names, strict=True)
    ]
    for (kind, shape), group in groupby(rows, key=lambda row: row[:2]):
        members = list(group)
        times = f"{len(members)} x " if len(members) > 1 else ""
        yield times + kind, shape, f"{sum(m[2] for m in members):,}", members[-1][3]


class CellC4Split(C4Split):
    """Cells before and from the last reduction cell on.

    The map between them is what that cell reads: the concatenation of the two outputs before it,
    the older first.
    """

    def __init__(self, backbone: CellBackbone) -> None:
        body = backbone.body
        strides = [stride for _, stride in body.last_reduction_inputs]
        if strides != [SPLIT_STRIDE] * 2:
            raise ValueError(
                f"{backbone.spec} cannot be split at stride {SPLIT_STRIDE}: its last reduction "
                f"reads outputs at strides {strides}"
            )
        self._backbone = backbone
        self._older_channels = body.last_reduction_inputs[0][0]
        self.channels = sum(channels for channels, _ in body.last_reduction_inputs)
        self.out_channels = next(reversed(body.channels.values()))

    def forward_c4(self, images: Tensor) -> Tensor:
        pixels = self._backbone.normalize(images)
        return torch.cat(self._backbone.body.forward_to_last_reduction(pixels), dim=1)

    def forward_c5(self, crops: Tensor) -> Tensor:
        older, newer = crops.tensor_split([self._older_channels], dim=1)
        return self._backbone.body.forward_from_last_reduction(older, newer)
