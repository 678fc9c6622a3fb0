r"""Train Faster R-CNN on a backbone and evaluate it as COCO does.

Writes detector.safetensors, results.json, metrics.json and detections.png. Run again, it goes on.

python tools/train_detector.py                                          # demonstration data
python tools/train_detector.py backbone=runs/pretrain/backbone.safetensors
python tools/train_detector.py experiment=coco_1x data.root=/data/coco \
    backbone=timm:resnet50 pretrained=true
python tools/train_detector.py --dry-run          # is the set-up sound? within a minute
torchrun --nproc-per-node 2 tools/train_detector.py
"""

import sys

import hydra
from omegaconf import DictConfig

from _detection_schemas import TrainDetector
from _entry import start_tool
from _run import log_images, plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="train_detector")
def main(config: DictConfig) -> None:
    with plain_errors():
        from backbone.io.runtime import global_rank
        from detection.engine.showcase import draw_showcase
        from detection.engine.train import train_detector
        from detection.evaluation.summary import describe_metrics, headline

        run = start_run(config)
        settings, out = run.settings, run.out
        if settings.dry_run:
            sys.exit(_try(settings))
        result = train_detector(settings, out, loggers=run.loggers)
        if global_rank() == 0:
            picture = draw_showcase(result.path, result.val, out / "detections.png")
            for logger in run.loggers:
                logger.log_metrics(headline(result.metrics))
            log_images(run.loggers, "detections", [picture])
            run.finish()
            state = "already there" if result.skipped else f"{result.seconds:.0f} s"
            print(describe_metrics(result.metrics))
            print(f"detector: {result.path}  ({state})\ndetections: {picture}")


def _try(settings: TrainDetector) -> int:
    from detection.engine.dry_run import try_training

    outcome = try_training(settings)
    print(outcome.describe())
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    start_tool(main, about=__doc__)
