"""A backbone's stages and their shapes, as a table that a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor, nn

from backbone.models.backbone import Backbone, unbuilt
from backbone.models.cell_network import CellNetwork


def describe_stages(backbone: Backbone, *, side_px: int) -> str:
    """Return a line per stage: what it is, its output's channels and sides, its map's name.

    Cells of one kind and shape that follow each other share a line. Of a backbone without cells
    only the maps are known.
    """
    twin = unbuilt(backbone.description, out=backbone.out)
    images = torch.empty(1, 3, side_px, side_px, device="meta")
    if isinstance(twin.body, CellNetwork):
        rows = [("stage", "output", "parameters", "map"), *_cell_rows(twin, twin.body, images)]
    else:
        rows = [("map", "output", "stride", "")]
        rows += [(k, _shape(m), str(twin.strides[k]), "") for k, m in twin(images).items()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cell_rows(
    backbone: Backbone, body: CellNetwork, images: Tensor
) -> Iterator[tuple[str, str, str, str]]:
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
        (kind, _shape(output), sum(p.numel() for p in part.parameters()), name)
        for kind, (part, output), name in zip(kinds, outputs, names, strict=True)
    ]
    for (kind, shape), group in groupby(rows, key=lambda row: row[:2]):
        members = list(group)
        times = f"{len(members)} x " if len(members) > 1 else ""
        yield times + kind, shape, f"{sum(m[2] for m in members):,}", members[-1][3]


def _shape(output: Tensor) -> str:
    _, channels, height, width = output.shape
    return f"{channels} x {height} x {width}"
