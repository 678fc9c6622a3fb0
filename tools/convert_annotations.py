r"""Convert annotations: Pascal VOC, YOLO text and WIDER FACE to COCO JSON, and back.

python tools/convert_annotations.py source=/data/voc source_format=voc out=/data/mine
python tools/convert_annotations.py source=/data/mine source_format=coco target_format=yolo \
    out=/data/yolo 'splits=[train,val,test]' images=copy
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="convert_annotations")
def main(config: DictConfig) -> None:
    with plain_errors():
        from detection.conversion import convert_annotations

        run = start_run(config)
        settings, out = run.settings, run.out
        for split in convert_annotations(settings, out):
            counts = ", ".join(f"{name} {count}" for name, count in split.boxes.items())
            print(f"{split.name}: {split.images} images, boxes: {counts or 'none'}")
        if settings.target_format == "coco" and {"train", "val"} <= set(settings.splits):
            print(f"use it: data=converted data.root={out}")
        elif settings.target_format == "coco":
            for split in settings.splits:
                print(
                    f"annotations: {out}/annotations/instances_{split}.json  images: {out}/{split}"
                )


if __name__ == "__main__":
    start_tool(main, about=__doc__)
