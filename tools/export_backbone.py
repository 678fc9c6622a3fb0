r"""Write a backbone or a classifier as a file that runs without this program: ONNX, torch.export.

The file is run once more on other images than the export saw, and kept only if its outputs are the
original's.

python tools/export_backbone.py backbone=runs/pretrain/backbone.safetensors side_px=64
python tools/export_backbone.py backbone=runs/pretrain/backbone.safetensors part=classifier \
    file_format=torch
"""

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="export_backbone")
def main(config: DictConfig) -> None:
    with plain_errors():
        from backbone.models.backbone import build_backbone
        from backbone.models.classifier import load_classifier
        from backbone.models.export import FORMATS, export_network

        run = start_run(config)
        settings = run.settings
        is_classifier = settings.part == "classifier"
        if is_classifier and not settings.backbone.endswith(".safetensors"):
            raise ValueError(f"only a .safetensors has a classifier, not {settings.backbone}")
        build = load_classifier if is_classifier else build_backbone
        path = run.out / f"{settings.part}{FORMATS.get(settings.file_format, '')}"
        errors = export_network(
            build(settings.backbone),
            path,
            side_px=settings.side_px,
            file_format=settings.file_format,
        )
        run.finish()
        print(f"{path}: greatest relative difference from the original {max(errors.values()):.1e}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
