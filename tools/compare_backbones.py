r"""Train the same detector on several backbones; one table.

Writes report.html and comparison.json, and each detector in a folder of its own.

python tools/compare_backbones.py                                   # demonstration data
python tools/compare_backbones.py \
    'backbones=[runs/pretrain/backbone.safetensors,timm:lcnet_050]'
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import hydra
from omegaconf import DictConfig

from _detection_schemas import CompareBackbones
from _entry import start_tool
from _run import build_loggers, finish_loggers, named_bar, plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="compare_backbones")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        compare_backbones(run.settings, run.out)
        run.record()


def compare_backbones(settings: CompareBackbones, out: Path) -> None:
    from backbone.io.files import write_json
    from backbone.io.html import Table, write_page
    from backbone.io.text_tables import text_table
    from backbone.models.backbone import build_backbone
    from backbone.profile.complexity import measure_cost
    from detection.engine.train import train_detector
    from detection.evaluation.summary import BackboneResult, comparison_rows

    # A typing error in the last spec should not show after hours of training the first.
    costs = {
        spec: measure_cost(build_backbone(spec), side_px=settings.side_px)
        for spec in settings.backbones
    }
    contestants = []
    for number, (spec, cost) in enumerate(costs.items()):
        folder = out / f"{number}-{re.sub(r'[^A-Za-z0-9]+', '-', spec)[-40:]}"
        loggers = build_loggers(settings.logger, folder)
        bar = named_bar(f"{spec} ({number + 1}/{len(costs)})")
        result = train_detector(
            replace(settings.training, backbone=spec), folder, loggers=loggers, callbacks=[bar]
        )
        finish_loggers(loggers)
        contestants.append(
            BackboneResult(
                name=spec,
                parameters=cost.parameters,
                mult_adds=cost.mult_adds,
                metrics=result.metrics,
                seconds={"detector": result.seconds},
            )
        )
    head, rows = comparison_rows(contestants)
    write_json(out / "comparison.json", [c.to_dict() for c in contestants])
    write_page(
        out / "report.html",
        title="Backbones compared",
        lead="The same detector training on each backbone.",
        parts=[Table("Comparison", head, rows, "AP in percent on the validation images.")],
    )
    print(f"\n{text_table(head, rows)}\n\nreport: {out / 'report.html'}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
