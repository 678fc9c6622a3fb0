r"""Convert annotations: Pascal VOC, YOLO text and WIDER FACE to COCO JSON, and back.

python tools/convert_annotations.py source=/data/voc source_format=voc out=/data/mine
python tools/convert_annotations.py source=/data/mine source_format=coco target_format=yolo \
    out=/data/yolo 'splits=[train,val,test]' images=copy
"""

from __future__ import annotations

from collections.abc import Mapping

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run

MOST_FREQUENT = 8
"""Categories that are counted by name."""


@hydra.main(version_base=None, config_path="../conf", config_name="convert_annotations")
def main(config: DictConfig) -> None:
    with plain_errors():
        from detection.data.convert.convert import convert_annotations

        run = start_run(config)
        settings, out = run.settings, run.out
        for split in convert_annotations(settings, out):
            print(f"{split.name}: {split.images} images, {describe_boxes(split.boxes)}")
        if settings.target_format == "coco" and {"train", "val"} <= set(settings.splits):
            print(f"use it: data=converted data.root={out}")
        elif settings.target_format == "coco":
            for split in settings.splits:
                print(
                    f"annotations: {out}/annotations/instances_{split}.json  images: {out}/{split}"
                )


def describe_boxes(boxes: Mapping[str, int]) -> str:
    """Say how many boxes there are, and of which categories most."""
    if not boxes:
        return "no boxes"
    most = sorted(boxes.items(), key=lambda item: -item[1])[:MOST_FREQUENT]
    counts = ", ".join(f"{name} {count}" for name, count in most)
    left = len(boxes) - len(most)
    return f"{sum(boxes.values())} boxes: {counts}" + (f", {left} more categories" if left else "")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
