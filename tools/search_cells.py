r"""Search for cells.

Writes cells.json, cells.png, trials.csv and report.html. Run again, it goes on; with more trials,
too.

python tools/search_cells.py                                        # demonstration data
python tools/search_cells.py strategy=evolution num_trials=100 control=true
python tools/search_cells.py reward=proxy_paper reward.data_root=/data/cifar10 \
    reward.download=true num_trials=500
python tools/search_cells.py strategy=nsga2 cost.front=true    # accuracy and multiply-adds
"""

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import log_images, plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="search_cells")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        settings, out = run.settings, run.out

        from _rewards import build_reward, build_score
        from search.analysis.report import write_report
        from search.study.study import TrialRecord, search_cells, search_control

        def log(trial: TrialRecord) -> None:
            for logger in run.loggers:
                if trial.reward is not None:
                    logger.log_metrics({"reward": trial.reward}, step=trial.number)

        reward = build_reward(settings.reward)
        score = build_score(settings.zero_cost, settings.reward)
        result = search_cells(settings, out, reward=reward, score=score, on_trial=log)
        searches = {"search": [out]}
        if settings.control:
            searches["random control"] = [search_control(settings, out, reward=reward).path.parent]
        page = write_report(searches, out / "report.html")
        log_images(run.loggers, "cells", [out / "cells.png"])
        run.finish()
        state = "already there" if result.skipped else f"{result.seconds:.0f} s of training"
        print(f"winner: {result.describe()}  ({state})")
        print(f"cells: {result.path}\ndrawing: {out / 'cells.png'}\nreport: {page}")


if __name__ == "__main__":
    start_tool(main, about=__doc__)
