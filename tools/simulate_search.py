"""Run a whole search on workers that only pretend to train: how busy can it keep them.

Time is virtual while the driver waits and real while it works. Writes simulation.json.

python tools/simulate_search.py                                     # as in the paper: 500 workers
python tools/simulate_search.py num_trials=500 workers.num_workers=20 strategy=evolution
"""

import logging
from dataclasses import asdict

import hydra
from omegaconf import DictConfig

from _entry import start_tool
from _run import plain_errors, start_run


@hydra.main(version_base=None, config_path="../conf", config_name="simulate_search")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        workers = run.settings.workers

        import optuna

        from backbone.io.files import write_json
        from search.analysis.simulation import simulate_search

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Every simulated failure is announced as a real one is; here their number is enough.
        logging.getLogger("search.study.driver").setLevel(logging.ERROR)
        result = simulate_search(run.settings.search(), workers, run.out)
        path = run.out / "simulation.json"
        write_json(path, asdict(result))
        run.record()
        print(
            f"{result.num_trials} trials on {workers.num_workers} workers: {result.num_failed} "
            f"failed, {result.num_lost} trainings done again because their worker was lost\n"
            f"virtual time: {result.virtual_hours:.2f} h, the last {result.tail_hours:.2f} h of it "
            "waiting for the trainings under way\n"
            f"workers busy: {result.busy_percent_before_tail:.2f} % until the last trial was "
            f"handed out, {result.busy_percent:.2f} % until the end\n"
            f"driver: {result.driver_seconds_per_trial:.4f} s per trial, "
            f"{result.peak_gib:.2f} GiB\nresult: {path}"
        )


if __name__ == "__main__":
    start_tool(main, about=__doc__)
