"""Search for cells.

Writes cells.json, cells.png and trials.csv. Run again, it goes on; with more trials, too.

python tools/search_cells.py                                        # demonstration data
python tools/search_cells.py strategy=random num_trials=100
python tools/search_cells.py reward.data_root=/data/cifar10 reward.download=true num_trials=500
"""

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import log_images, plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="search_cells")
def main(config: DictConfig) -> None:
    with plain_errors():
        from search.reward import ProxyAccuracy
        from search.study import TrialRecord, search_cells

        run = start_run(config)
        settings, out = run.settings, run.out

        def log(trial: TrialRecord) -> None:
            for logger in run.loggers:
                if trial.reward is not None:
                    logger.log_metrics({"reward": trial.reward}, step=trial.number)

        result = search_cells(settings, out, reward=ProxyAccuracy(settings.reward), on_trial=log)
        log_images(run.loggers, "cells", [out / "cells.png"])
        run.finish()
        state = "already there" if result.skipped else f"{result.seconds:.0f} s"
        print(f"winner: {result.describe()}  ({state})")
        print(f"cells: {result.path}\ndrawing: {out / 'cells.png'}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
