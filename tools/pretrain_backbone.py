r"""Pretrain a backbone as a classifier on an image folder, CIFAR-10 or ImageNet.

Writes backbone.safetensors, which is a backbone spec, and metrics.json. The same command resumes an
interrupted training.

nasdet pretrain-backbone                                       # demonstration data
nasdet pretrain-backbone backbone=runs/search/cells.json:2@384
nasdet pretrain-backbone data_root=/data/imagenet recipe=classifier_imagenet \
    backbone=nasnet_a:4@1056 num_workers=8
"""

from __future__ import annotations

from dataclasses import dataclass

from _cli import Run, tool
from _logger_base import LoggerConfig
from _output import print_line, print_stage
from backbone.config import PretrainConfig


@dataclass(kw_only=True, slots=True)
class Args(PretrainConfig):
    """Settings of ``pretrain_backbone``."""

    out: str
    """The run's folder."""
    logger: LoggerConfig
    """Where metrics are logged."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.training.pretrain import run_pretraining

    result = run_pretraining(run.args, run.out, loggers=run.trainer_loggers)
    run.finish()
    run.report(
        accuracy=result.accuracy,
        seconds=result.seconds,
        skipped=result.skipped,
        backbone=result.path,
    )
    accuracy = f"{100 * result.accuracy:.1f} %"
    print_stage("accuracy", accuracy, result.seconds, skipped=result.skipped)
    print_line("backbone", result.path)


if __name__ == "__main__":
    main()
