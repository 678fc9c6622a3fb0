r"""Convert annotations: Pascal VOC, YOLO text and WIDER FACE to COCO JSON, and back.

nasdet convert-annotations source=/data/voc source_format=voc out=/data/mine
nasdet convert-annotations source=/data/mine source_format=coco target_format=yolo \
    out=/data/yolo 'splits=[train,val,test]' images=copy
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from _cli import Run, tool
from _output import print_line
from detection.data.convert.formats import ConversionConfig

MAX_NAMED_CATEGORIES = 8
"""Most frequent categories that are listed by name."""


@dataclass(kw_only=True, slots=True)
class Args(ConversionConfig):
    """Settings of ``convert_annotations``."""

    out: str
    """The folder to write; with ``target_format=coco`` it becomes ``data.root`` of
    ``data=converted``."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from detection.data.convert.convert import convert_annotations

    args, out = run.args, run.out
    splits = convert_annotations(args, out)
    run.report(splits={s.name: {"images": s.images, "boxes": s.boxes} for s in splits})
    for split in splits:
        print_line(split.name, f"{split.images} images, {format_box_counts(split.boxes)}")
    if args.target_format == "coco" and {"train", "val"} <= set(args.splits):
        print_line("train on it", f"nasdet train-detector experiment=detector_cpu data.root={out}")
    elif args.target_format == "coco":
        for name in args.splits:
            path = f"{out}/annotations/instances_{name}.json"
            print_line("annotations", f"{path}  images: {out}/{name}")


def format_box_counts(boxes: Mapping[str, int]) -> str:
    """Return the number of boxes, in all and in the most frequent categories, as text."""
    if not boxes:
        return "no boxes"
    most = sorted(boxes.items(), key=lambda item: -item[1])[:MAX_NAMED_CATEGORIES]
    counts = ", ".join(f"{name} {count}" for name, count in most)
    left = len(boxes) - len(most)
    return f"{sum(boxes.values())} boxes: {counts}" + (f", {left} more categories" if left else "")


if __name__ == "__main__":
    main()
