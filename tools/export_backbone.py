r"""Export a backbone or a classifier to ONNX or torch.export, a file that runs without nasdet.

The file is run once on other images than the export used, and kept only if its outputs equal the
original's.

nasdet export-backbone backbone=runs/pretrain/backbone.safetensors side_px=64
nasdet export-backbone backbone=runs/pretrain/backbone.safetensors part=classifier \
    file_format=torch
"""

from __future__ import annotations

from dataclasses import dataclass

from _cli import Run, tool
from _output import print_line


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``export_backbone``."""

    out: str
    """The folder for the file."""
    backbone: str
    """Backbone spec, usually a ``.safetensors``; any other has random weights."""
    part: str = "trunk"
    """``trunk``, images to feature maps; or ``classifier``, images to logits, for a file of
    ``pretrain_backbone``."""
    file_format: str = "onnx"
    """``onnx`` or ``torch`` (``torch.export``)."""
    side_px: int = 224
    """Height and width of the images that the exported file takes, in batches of any size."""

    def __post_init__(self) -> None:
        if self.part not in ("trunk", "classifier"):
            raise ValueError(f"unknown part {self.part!r}; choose trunk or classifier")


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.models.backbone import build_backbone
    from backbone.models.classifier import load_classifier
    from backbone.models.export import FORMATS, export_network

    args = run.args
    is_classifier = args.part == "classifier"
    if is_classifier and not args.backbone.endswith(".safetensors"):
        raise ValueError(f"only a .safetensors has a classifier, not {args.backbone}")
    build = load_classifier if is_classifier else build_backbone
    path = run.out / f"{args.part}{FORMATS.get(args.file_format, '')}"
    errors = export_network(
        build(args.backbone),
        path,
        side_px=args.side_px,
        file_format=args.file_format,
    )
    run.finish()
    run.report(path=path, greatest_relative_difference=max(errors.values()), by_output=errors)
    print_line(args.part, path)
    print_line("greatest relative difference from the original", f"{max(errors.values()):.1e}")


if __name__ == "__main__":
    main()
