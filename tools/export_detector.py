r"""Export a trained detector to ONNX, or its backbone by torch.export.

The file is written only if its AP on the given images is less than 0.1 points below the
detector's; a JSON beside it holds the figures.

python tools/export_detector.py
python tools/export_detector.py weights=runs/detector/detector.safetensors file_format=torch \
    annotations=/data/coco/annotations/instances_val2017.json images=/data/coco/val2017
"""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="export_detector")
def main(config: DictConfig) -> None:
    with plain_errors():
        from detection.data.coco import CocoTable
        from detection.engine.export import export_detector

        run = start_run(config)
        settings = run.settings
        exported = export_detector(
            Path(settings.weights),
            run.out,
            annotations=CocoTable.load(settings.annotations, bad_boxes=settings.bad_boxes),
            image_root=Path(settings.images),
            file_format=settings.file_format,
        )
        run.finish()
        print(
            f"{exported.path}: takes {exported.height_px} x {exported.width_px} pixels; AP "
            f"{exported.ap:.2f}, the detector's on the same input {exported.original_ap:.2f} "
            f"({exported.images} images)"
        )
        if exported.original_ap == 0:
            print("the detector finds nothing on these images, so that they prove nothing")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
