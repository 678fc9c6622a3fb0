"""Print a backbone's layers and cost; draw its cells.

Prints parameters, multiply-adds, activations, memory and the stages with their shapes; writes
cells.png.

nasdet describe-backbone backbone=nasnet_a:6@4032 side_px=331
nasdet describe-backbone backbone=runs/search/cells.json:2@384 side_px=64 batch_size=128
nasdet describe-backbone backbone=timm:resnet50
"""

from __future__ import annotations

from dataclasses import dataclass

from _cli import Run, tool
from _output import print_line, to_json
from backbone.config import require_at_least


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``describe_backbone``."""

    out: str
    """The folder for the drawing of its cells."""
    backbone: str
    """Backbone spec."""
    side_px: int
    """Height and width of the images."""
    batch_size: int
    """Images per batch, for the memory."""
    num_classes: int = 1000
    """Classes of the classifier whose parameters are counted, too."""
    stem: str = "imagenet"
    """Stem of cell backbones: ``imagenet`` or ``cifar``."""

    def __post_init__(self) -> None:
        for name in ("side_px", "batch_size", "num_classes"):
            require_at_least(1, **{name: getattr(self, name)})


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.cells.drawing import draw_genotype
    from backbone.cells.genotype import Genotype
    from backbone.models.backbone import BackboneSpec
    from backbone.profile.complexity import measure_cost, measure_memory

    args = run.args
    spec = BackboneSpec.parse(args.backbone, stem=args.stem)
    backbone = spec.build_meta()
    side, batch = args.side_px, args.batch_size
    cost = measure_cost(backbone, side_px=side)
    head = (backbone.channels[backbone.out[-1]] + 1) * args.num_classes
    memory = measure_memory(backbone, side_px=side, batch_size=batch)
    whole = f"with a classifier of {args.num_classes} classes {cost.parameters + head:,}"
    saved = memory.checkpointed
    steps = f"{_bytes(memory.training)} for a training step" + (
        "" if saved is None else f" ({_bytes(saved)} with activation checkpointing)"
    )
    print(f"""{args.backbone} at {side} x {side} px

parameters   {cost.parameters:,}; {whole}
mult-adds    {cost.mult_adds:,} per image
activations  {cost.activations:,} per image
memory       of {batch} images: {_bytes(memory.inference)} for inference, {steps}

{backbone.summary(side_px=side)}""")
    run.report(
        backbone=args.backbone,
        side_px=side,
        batch_size=batch,
        **to_json(cost),
        classifier_parameters=head,
        memory_bytes=memory,
        channels=dict(backbone.channels),
    )
    if isinstance(spec.architecture, Genotype):
        drawing = run.out / "cells.png"
        draw_genotype(spec.architecture, drawing, title=args.backbone)
        run.report(drawing=drawing)
        print()
        print_line("cells", drawing)


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
