r"""Train the same detector on several backbones and compare them in one table.

Writes report.html and comparison.json, and each detector to a folder of its own.

python tools/compare_backbones.py                                   # demonstration data
python tools/compare_backbones.py \
    'backbones=[runs/pretrain/backbone.safetensors,timm:lcnet_050]'
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from _cli import Run, tool
from _logger_base import LoggerConfig
from _loggers import build_loggers, close_loggers, named_bar
from _output import print_line
from detection.engine.config import TrainDetectorConfig


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``compare_backbones``."""

    out: str
    """The run's folder; each backbone has a folder of its own in it."""
    backbones: list[str]
    """Backbone specs; ``.safetensors`` files come with their weights."""
    training: TrainDetectorConfig
    """The detector training, the same for all; its ``backbone`` is filled in."""
    side_px: int
    """Side of the square image for which multiply-adds are counted."""
    logger: LoggerConfig
    """Where metrics are logged."""

    def __post_init__(self) -> None:
        if not self.backbones:
            raise ValueError("backbones needs at least one spec")


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.io.files import write_json
    from backbone.io.html import Table, write_page
    from backbone.io.text_tables import text_table
    from backbone.models.backbone import build_backbone
    from backbone.profile.complexity import measure_cost
    from detection.engine.train import train_detector
    from detection.evaluation.summary import BackboneResult, comparison_rows

    args, out = run.args, run.out
    # Build all first: a typo in the last spec must not show after hours of training.
    costs = {
        spec: measure_cost(build_backbone(spec), side_px=args.side_px) for spec in args.backbones
    }
    results = []
    for number, (spec, cost) in enumerate(costs.items()):
        folder = out / f"{number}-{re.sub(r'[^A-Za-z0-9]+', '-', spec)[-40:]}"
        loggers = build_loggers(args.logger, folder)
        trained = train_detector(
            replace(args.training, backbone=spec),
            folder,
            loggers=[logger.lightning for logger in loggers],
            callbacks=[named_bar(f"{spec} ({number + 1}/{len(costs)})")],
        )
        close_loggers(loggers)
        results.append(
            BackboneResult(
                name=spec,
                parameters=cost.parameters,
                mult_adds=cost.mult_adds,
                metrics=trained.metrics,
                seconds={"detector": trained.seconds},
            )
        )
    head, rows = comparison_rows(results)
    write_json(out / "comparison.json", [result.to_dict() for result in results])
    write_page(
        out / "report.html",
        title="Backbones compared",
        lead="The same detector training on each backbone.",
        parts=[Table("Comparison", head, rows, "AP in percent on the validation images.")],
    )
    run.record()
    run.report(
        backbones=[result.to_dict() for result in results],
        comparison=out / "comparison.json",
        report=out / "report.html",
    )
    print(f"\n{text_table(head, rows)}\n")
    print_line("report", out / "report.html")


if __name__ == "__main__":
    main()
