"""Import released weights of NASNet-A or PNASNet-5 as a backbone.

Writes backbone.safetensors, which is a backbone spec.

nasdet import-weights weights=nasnetalarge-a1897284.pth backbone=nasnet_a:6@4032
nasdet import-weights weights=timm:pnasnet5large backbone=pnasnet_5:4@4320
"""

from __future__ import annotations

from dataclasses import dataclass

from _cli import Run, tool
from _output import print_line


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``import_weights``."""

    out: str
    """The folder for ``backbone.safetensors``."""
    weights: str
    """A state dict (``.pth`` or ``.safetensors``) with timm's and Cadene's names, or
    ``timm:nasnetalarge``, which downloads."""
    backbone: str
    """Cells and N @ F of the network that the weights belong to."""
    average_counts_padding: bool = False
    """Whether strided average pooling counts the zeros of its padding, which gives timm's and
    Keras's outputs; the released code, in which the weights were trained, does not count them."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.models.timm_import import import_weights

    args = run.args
    path = run.out / "backbone.safetensors"
    import_weights(
        args.weights,
        path,
        spec=args.backbone,
        average_counts_padding=args.average_counts_padding,
    )
    run.finish()
    run.report(backbone=path)
    print_line("backbone", path)


if __name__ == "__main__":
    main()
