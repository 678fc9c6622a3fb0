"""Turn weights that others released for NASNet-A or PNASNet-5 into a backbone.

Writes backbone.safetensors, which is a backbone spec.

python tools/import_weights.py weights=nasnetalarge-a1897284.pth backbone=nasnet_a:6@4032
python tools/import_weights.py weights=timm:pnasnet5large backbone=pnasnet_5:4@4320
"""

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="import_weights")
def main(config: DictConfig) -> None:
    with plain_errors():
        from backbone.models.timm_import import import_weights

        run = start_run(config)
        settings = run.settings
        path = run.out / "backbone.safetensors"
        import_weights(
            settings.weights,
            path,
            spec=settings.backbone,
            average_counts_padding=settings.average_counts_padding,
        )
        run.finish()
        print(f"backbone: {path}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
