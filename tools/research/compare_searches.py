r"""Compare finished searches on one page: best reward so far over trials and time, across seeds.

Writes report.html and its plots.

nasdet search-cells --multirun out=runs/random strategy=random seed=0,1
nasdet search-cells --multirun out=runs/short strategy=evolution_short seed=0,1
nasdet research compare-searches \
    'searches={random: [runs/random/0, runs/random/1], short: [runs/short/0, runs/short/1]}'
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _output import print_line


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``compare_searches``."""

    out: str
    """The folder for the page and its plots."""
    searches: Any
    """Name -> folders of finished searches that differ only by their seeds."""

    def __post_init__(self) -> None:
        # Hydra lets no command line put keys into a typed dict, so the type is checked here.
        groups = list(self.searches.values()) if isinstance(self.searches, dict) else []
        if not groups or not all(isinstance(folders, list) and folders for folders in groups):
            raise ValueError(
                "searches needs folders for every name, as in {random: [runs/a, runs/b]}, not "
                f"{self.searches}"
            )


@tool(Args)
def main(run: Run[Args]) -> None:
    from search.analysis.report import write_report

    searches = {
        name: [Path(folder) for folder in folders] for name, folders in run.args.searches.items()
    }
    page = write_report(searches, run.out / "report.html")
    run.record()
    run.report(report=page)
    print_line("report", page)


if __name__ == "__main__":
    main()
