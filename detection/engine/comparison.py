"""Train the same detector on several backbones and compare them in one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from backbone.io.files import write_json
from backbone.io.html import Table, write_page
from backbone.io.text_tables import text_table
from backbone.models.backbone import build_backbone
from backbone.profile.complexity import measure_cost
from detection.engine.config import ComparisonConfig
from detection.engine.train import run_training
from detection.evaluation.summary import BackboneResult, comparison_rows

OpenLoggers = Callable[[Path], AbstractContextManager[Sequence[Logger]]]
"""Opens the loggers of one training, given its folder, and closes them at the end."""
BarOf = Callable[[str], Callback]
"""Returns a progress bar that shows a name."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of a comparison."""

    path: Path
    """``report.html``; ``comparison.json`` is in the same folder."""
    results: list[BackboneResult]
    """Cost and metrics of each backbone, in the order given."""

    @property
    def text(self) -> str:
        """The table as text."""
        return text_table(*comparison_rows(self.results))


@contextmanager
def _no_loggers(_: Path) -> Iterator[Sequence[Logger]]:
    yield ()


def run_comparison(
    config: ComparisonConfig,
    out_dir: Path,
    *,
    open_loggers: OpenLoggers = _no_loggers,
    bar_of: BarOf | None = None,
) -> Comparison:
    """Train a detector on each backbone; write ``report.html`` and ``comparison.json``.

    Each detector is written to a folder of its own; finished trainings are not repeated.

    Args:
        config: the backbones and the training.
        out_dir: the folder to write to.
        open_loggers: see ``OpenLoggers``; by default nothing is logged.
        bar_of: see ``BarOf``; by default Lightning's own bar is shown.

    Raises:
        FileNotFoundError: if the file of a spec or the data are missing.
        ValueError: if a spec, annotations or an image are invalid.
        ImportError: if the detector needs detectron2 and that is not installed.
        FloatingPointError: if a loss is not finite.
    """
    # Build all first: a typo in the last spec must not show after hours of training.
    costs = {
        spec: measure_cost(build_backbone(spec), side_px=config.side_px)
        for spec in config.backbones
    }
    results = []
    for number, (spec, cost) in enumerate(costs.items()):
        folder = out_dir / f"{number}-{re.sub(r'[^A-Za-z0-9]+', '-', spec)[-40:]}"
        with open_loggers(folder) as loggers:
            trained = run_training(
                replace(config.training, backbone=spec),
                folder,
                loggers=loggers,
                callbacks=[bar_of(f"{spec} ({number + 1}/{len(costs)})")] if bar_of else [],
            )
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
    write_json(out_dir / "comparison.json", [result.to_dict() for result in results])
    write_page(
        out_dir / "report.html",
        title="Backbones compared",
        lead="The same detector training on each backbone.",
        parts=[Table("Comparison", head, rows, "AP in percent on the validation images.")],
    )
    return Comparison(out_dir / "report.html", results)
