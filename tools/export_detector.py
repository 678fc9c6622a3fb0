r"""Export a trained detector to ONNX, or its backbone by torch.export.

The file is written only if its AP on the given images is less than 0.1 points below the
detector's; a JSON file beside it holds the metrics.

nasdet export-detector
nasdet export-detector weights=runs/detector/detector.safetensors file_format=torch \
    annotations=/data/coco/annotations/instances_val2017.json images=/data/coco/val2017
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from _cli import Run, tool
from _output import print_line, to_json


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``export_detector``."""

    out: str
    """The folder for ``detector.onnx`` or ``backbone.pt2``, and the JSON file with its metrics."""
    weights: str
    """A ``detector.safetensors``."""
    annotations: str
    """COCO JSON of the images on which the exported file must match the detector's AP."""
    images: str
    """Folder of these images."""
    file_format: str = "onnx"
    """``onnx``: the whole detector, for the torchvision engine; ``torch``: its backbone, by
    ``torch.export``."""
    bad_boxes: str = "error"
    """Treatment of boxes without area or outside their image: ``error`` or ``drop``."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from detection.data.coco import CocoTable
    from detection.engine.export import export_detector

    args = run.args
    exported = export_detector(
        Path(args.weights),
        run.out,
        annotations=CocoTable.load(args.annotations, bad_boxes=args.bad_boxes),
        image_root=Path(args.images),
        file_format=args.file_format,
    )
    run.finish()
    run.report(**to_json(exported))
    print_line("exported", exported.path)
    print_line("input", f"{exported.height_px} x {exported.width_px} pixels")
    print_line(
        "AP",
        f"{exported.ap:.2f}, the detector's on the same input {exported.original_ap:.2f} "
        f"({exported.images} images)",
    )
    if exported.original_ap == 0:
        print("the detector has no correct detections on these images, so they prove nothing")


if __name__ == "__main__":
    main()
