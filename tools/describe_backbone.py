"""Say what a backbone is made of and what it costs; draw its cells.

Prints parameters, multiply-adds, activations, memory and the stages with their shapes; writes
cells.png.

python tools/describe_backbone.py backbone=nasnet_a:6@4032 side_px=331
python tools/describe_backbone.py backbone=runs/search/cells.json:2@384 side_px=64 batch_size=128
python tools/describe_backbone.py backbone=timm:resnet50
"""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run
from _schemas import DescribeBackbone


@hydra.main(version_base=None, config_path="../conf", config_name="describe_backbone")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        describe_backbone(run.settings, run.out)


def describe_backbone(settings: DescribeBackbone, out: Path) -> None:
    from backbone.cells.drawing import draw_genotype
    from backbone.cells.genotype import Genotype
    from backbone.models.backbone import BackboneSpec
    from backbone.profile.complexity import measure_cost, measure_memory

    spec = BackboneSpec.parse(settings.backbone, stem=settings.stem)
    backbone = spec.build_meta()
    side, batch = settings.side_px, settings.batch_size
    cost = measure_cost(backbone, side_px=side)
    head = (backbone.channels[backbone.out[-1]] + 1) * settings.num_classes
    memory = measure_memory(backbone, side_px=side, batch_size=batch)
    whole = f"with a classifier of {settings.num_classes} classes {cost.parameters + head:,}"
    saved = memory.checkpointed
    steps = f"{_bytes(memory.training)} for a training step" + (
        "" if saved is None else f" ({_bytes(saved)} with activation checkpointing)"
    )
    print(f"""{settings.backbone} at {side} x {side} px

parameters   {cost.parameters:,}; {whole}
mult-adds    {cost.mult_adds:,} per image
activations  {cost.activations:,} per image
memory       of {batch} images: {_bytes(memory.inference)} for inference, {steps}

{backbone.summary(side_px=side)}""")
    if isinstance(spec.architecture, Genotype):
        drawing = out / "cells.png"
        draw_genotype(spec.architecture, drawing, title=settings.backbone)
        print(f"\ncells: {drawing}")


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


if __name__ == "__main__":
    start_tool(main, about=__doc__)
