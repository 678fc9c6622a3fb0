r"""Train Faster R-CNN on a backbone and evaluate it with COCO's metrics.

Writes detector.safetensors, results.json, metrics.json and detections.png. The same command resumes
an interrupted training.

nasdet train-detector                                          # demonstration data
nasdet train-detector backbone=runs/pretrain/backbone.safetensors
nasdet train-detector experiment=coco_1x data.root=/data/coco \
    backbone=timm:resnet50 pretrained=true
nasdet train-detector --dry-run          # check the setup in under a minute
torchrun --nproc-per-node 2 --no-python nasdet train-detector
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from _cli import Run, tool
from _logger_base import LoggerConfig
from backbone.io.runtime import global_rank
from detection.engine.config import TrainDetectorConfig


@dataclass(kw_only=True, slots=True)
class Args(TrainDetectorConfig):
    """Settings of ``train_detector``."""

    out: str
    """The run's folder."""
    logger: LoggerConfig
    """Where metrics are logged."""
    dry_run: bool = False
    """Only overfit one batch, in under a minute, and report whether the setup is sound;
    ``--dry-run`` is short for it."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from detection.engine.train import run_training
    from detection.engine.visualize import draw_showcase
    from detection.evaluation.summary import describe_metrics, headline

    args, out = run.args, run.out
    if args.dry_run:
        sys.exit(try_training(args))
    result = run_training(args, out, loggers=run.trainer_loggers)
    if global_rank() == 0:
        picture = draw_showcase(result.path, result.val, out / "detections.png")
        run.log_metrics(headline(result.metrics))
        run.log_images("detections", [picture])
        run.finish()
        state = "already there" if result.skipped else f"{result.seconds:.0f} s"
        print(describe_metrics(result.metrics))
        print(f"detector: {result.path}  ({state})\ndetections: {picture}")


def try_training(args: Args) -> int:
    """Overfit one batch, print the outcome and return the exit status."""
    from detection.engine.dry_run import try_training

    outcome = try_training(args)
    print(outcome.describe())
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    main()
