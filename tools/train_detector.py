r"""Train Faster R-CNN on a backbone and evaluate it with COCO's metrics.

Writes detector.safetensors, results.json, metrics.json and detections.png. The same command resumes
an interrupted training.

nasdet train-detector                                          # demonstration data
nasdet train-detector backbone=runs/pretrain/backbone.safetensors
nasdet train-detector experiment=coco_1x data.root=/data/coco \
    backbone=timm:resnet50 pretrained=true
nasdet train-detector --dry-run          # check the setup in about a minute
torchrun --nproc-per-node 2 --no-python nasdet train-detector
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from _cli import Run, fail, tool
from _logger_base import LoggerConfig
from _output import print_line, print_stage, to_json
from backbone.io.runtime import global_rank
from detection.engine.config import TrainDetectorConfig

if TYPE_CHECKING:
    from detection.data.dataset import CocoDataset


@dataclass(kw_only=True, slots=True)
class Args(TrainDetectorConfig):
    """Settings of ``train_detector``."""

    out: str
    """The run's folder."""
    logger: LoggerConfig
    """Where metrics are logged."""
    dry_run: bool = False
    """Only overfit one batch, in about a minute, and report whether the setup is sound;
    ``--dry-run`` is short for it."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from detection.data.dataset import describe_splits
    from detection.engine.train import run_training
    from detection.engine.visualize import draw_showcase
    from detection.evaluation.summary import describe_metrics, headline

    args, out = run.args, run.out
    if args.dry_run:
        try_training(run)
        return

    def show_data(train: CocoDataset, val: CocoDataset) -> None:
        if global_rank() == 0:
            print_line("data", describe_splits(train, val))

    result = run_training(args, out, loggers=run.trainer_loggers, on_data=show_data)
    if global_rank() == 0:
        picture = draw_showcase(result.path, result.val, out / "detections.png")
        run.log_metrics(headline(result.metrics))
        run.log_images("detections", [picture])
        run.finish()
        run.report(
            **result.metrics.to_dict(),
            seconds=result.seconds,
            skipped=result.skipped,
            detector=result.path,
            metrics=result.path.with_name("metrics.json"),
            results=result.path.with_name("results.json"),
            drawing=picture,
        )
        print(describe_metrics(result.metrics))
        print_stage("detector", result.path, result.seconds, skipped=result.skipped)
        print_line("detections", picture)


def try_training(run: Run[Args]) -> None:
    """Overfit one batch and print the outcome; exit with status 1 if the setup has faults."""
    from detection.engine.dry_run import try_training

    outcome = try_training(run.args)
    run.report(**to_json(outcome))
    print(outcome.describe())
    if outcome.faults:
        fail(outcome.faults)


if __name__ == "__main__":
    main()
