r"""Pretrain a backbone as a classifier on an image folder, CIFAR-10 or ImageNet.

Writes backbone.safetensors, which is a backbone spec, and metrics.json. Run again, it goes on.

python tools/pretrain_backbone.py                                       # demonstration data
python tools/pretrain_backbone.py backbone=runs/search/cells.json:2@384
python tools/pretrain_backbone.py data_root=/data/imagenet recipe=classifier_imagenet \
    backbone=nasnet_a:4@1056 num_workers=8
"""

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="pretrain_backbone")
def main(config: DictConfig) -> None:
    with plain_errors():
        from backbone.training.pretrain import pretrain_backbone

        run = start_run(config)
        result = pretrain_backbone(run.settings, run.out, loggers=run.loggers)
        run.finish()
        state = "already there" if result.skipped else f"{result.seconds:.0f} s"
        print(f"accuracy {100 * result.accuracy:.1f} %  ({state})")
        print(f"backbone: {result.path}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
