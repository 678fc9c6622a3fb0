r"""Train the same detector on several backbones and compare them in one table.

Writes report.html and comparison.json, and each detector to a folder of its own.

nasdet compare-backbones                                   # demonstration data
nasdet compare-backbones \
    'backbones=[runs/pretrain/backbone.safetensors,timm:lcnet_050]'
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _cli import Run, tool
from _logger_base import LoggerConfig
from _loggers import build_loggers, close_loggers, named_bar
from _output import print_line
from detection.engine.config import ComparisonConfig


@dataclass(kw_only=True, slots=True)
class Args(ComparisonConfig):
    """Settings of ``compare_backbones``."""

    out: str
    """The run's folder; each backbone has a folder of its own in it."""
    logger: LoggerConfig
    """Where metrics are logged."""


@tool(Args)
def main(run: Run[Args]) -> None:
    from detection.engine.comparison import run_comparison

    @contextmanager
    def open_loggers(folder: Path) -> Iterator[Sequence[Any]]:
        loggers = build_loggers(run.args.logger, folder)
        yield [logger.lightning for logger in loggers]
        close_loggers(loggers)

    comparison = run_comparison(run.args, run.out, open_loggers=open_loggers, bar_of=named_bar)
    run.record()
    run.report(
        backbones=[result.to_dict() for result in comparison.results],
        comparison=run.out / "comparison.json",
        report=comparison.path,
    )
    print(f"\n{comparison.text}\n")
    print_line("report", comparison.path)


if __name__ == "__main__":
    main()
