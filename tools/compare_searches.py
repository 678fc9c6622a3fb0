r"""Compare finished searches on one page: the best so far against trials and time, over seeds.

Writes report.html and its pictures.

python tools/search_cells.py --multirun out=runs/random strategy=random seed=0,1
python tools/search_cells.py --multirun out=runs/short strategy=evolution_short seed=0,1
python tools/compare_searches.py \
    'searches={random: [runs/random/0, runs/random/1], short: [runs/short/0, runs/short/1]}'
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="compare_searches")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)

        from search.analysis.report import write_report

        searches = {
            name: [Path(folder) for folder in folders]
            for name, folders in run.settings.searches.items()
        }
        page = write_report(searches, run.out / "report.html")
        run.record()
        print(f"report: {page}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
