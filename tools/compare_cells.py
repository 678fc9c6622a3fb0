r"""Train several cells alike, each as wide as its cost allows, and compare their test errors.

Takes cells.json of a search, its control, or published cells by name. Writes cells_compared.json
and measurements.jsonl. Run again, it goes on.

python tools/compare_cells.py 'cells=[runs/search/cells.json,nasnet_a]'   # demonstration data
python tools/compare_cells.py 'cells=[runs/cifar10/cells.json,nasnet_a,darts_v2]' \
    reward=proxy_paper reward.data_root=/data/cifar10 mult_adds=40
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run
from _search_schemas import CompareCells

if TYPE_CHECKING:
    from backbone.cells.genotype import Genotype


@hydra.main(version_base=None, config_path="../conf", config_name="compare_cells")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        settings: CompareCells = run.settings
        from backbone.io.text_tables import text_table
        from search.analysis.cell_comparison import compare_cells

        cells = {name: read_cells(name) for name in settings.cells}
        results = compare_cells(settings, settings.reward, cells, run.out)
        head = ("cells", "filters", "mult-adds", "parameters", "test error", "seconds")
        rows = [
            (
                r.name,
                str(r.size.first_filters),
                f"{r.size.mult_adds / 1e6:.2f} M",
                f"{r.size.parameters / 1e6:.3f} M",
                f"{100 * r.mean:.2f} ± {100 * r.deviation:.2f} %",
                f"{r.seconds / settings.num_seeds:.0f}",
            )
            for r in results
        ]
        for logger in run.loggers:
            logger.log_metrics({f"error/{r.name}": r.mean for r in results})
        run.finish()
        print(f"\n{text_table(head, rows)}\n")
        print(f"error: mean and standard deviation of {settings.num_seeds} seeds; seconds: of one")
        print(f"figures: {run.out / 'cells_compared.json'}")


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
    start_tool(main, about=__doc__)
