r"""Train several cells in the same way, each as wide as its cost allows; compare their test errors.

Takes cells.json of a search or its control, or published cells by name. Writes cells_compared.json
and measurements.jsonl. The same command resumes an interrupted comparison.

nasdet research compare-cells 'cells=[runs/search/cells.json,nasnet_a]'
nasdet research compare-cells 'cells=[runs/cifar10/cells.json,nasnet_a,darts_v2]' \
    reward=proxy_paper reward.data_root=/data/cifar10 mult_adds=40
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _logger_base import LoggerConfig
from _output import print_line
from search.analysis.config import CellComparisonConfig
from search.rewards.config import ProxyConfig

if TYPE_CHECKING:
    from backbone.cells.genotype import Genotype


@dataclass(kw_only=True, slots=True)
class Args(CellComparisonConfig):
    """Settings of ``compare_cells``."""

    out: str
    """The run's folder."""
    cells: list[str]
    """Published cells by name, or files with cells."""
    reward: ProxyConfig
    """The training; ``first_filters`` follows from ``mult_adds``."""
    logger: LoggerConfig
    """Where metrics are logged."""

    def __post_init__(self) -> None:
        CellComparisonConfig.__post_init__(self)
        if len(set(self.cells)) != len(self.cells) or not self.cells:
            raise ValueError(f"cells needs at least one name, each once, not {self.cells}")


@tool(Args)
def main(run: Run[Args]) -> None:
    from backbone.io.text_tables import text_table
    from search.analysis.cell_comparison import compare_cells

    args = run.args
    cells = {name: read_cells(name) for name in args.cells}
    results = compare_cells(args, args.reward, cells, run.out)
    head = ("cells", "filters", "mult-adds", "parameters", "test error", "seconds")
    rows = [
        (
            r.name,
            str(r.size.first_filters),
            f"{r.size.mult_adds / 1e6:.2f} M",
            f"{r.size.parameters / 1e6:.3f} M",
            f"{100 * r.mean:.2f} ± {100 * r.deviation:.2f} %",
            f"{r.seconds / args.num_seeds:.0f}",
        )
        for r in results
    ]
    run.log_metrics({f"error/{r.name}": r.mean for r in results})
    run.finish()
    run.report(cells=[r.to_dict() for r in results], figures=run.out / "cells_compared.json")
    print(f"\n{text_table(head, rows)}\n")
    print(f"error: mean and standard deviation of {args.num_seeds} seeds; seconds: of one")
    print_line("figures", run.out / "cells_compared.json")


def read_cells(name: str) -> Genotype:
    """Return published cells, or those of a file in any notation that ``convert_cells`` reads.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no cells.
    """
    from backbone.cells.notations import parse_genotype
    from backbone.cells.published import PUBLISHED

    if name in PUBLISHED:
        return PUBLISHED[name]
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} is neither a file with cells nor one of {', '.join(sorted(PUBLISHED))}"
        )
    try:
        return parse_genotype(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


if __name__ == "__main__":
    main()
