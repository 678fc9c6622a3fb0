"""Simulate a search to measure scheduler throughput and worker utilization.

Time is virtual while the driver waits and real while it works. Writes simulation.json.

nasdet research simulate-search                          # as in the paper: 500 workers
nasdet research simulate-search num_trials=500 workers.num_workers=20 strategy=evolution
"""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _output import print_line
from search.analysis.config import SimulationConfig
from search.rewards.config import CostConfig
from search.space import SpaceConfig
from search.strategies.config import StrategyConfig
from search.study.config import SearchConfig


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``simulate_search``."""

    out: str
    """The folder for ``simulation.json`` and the search's journal."""
    space: SpaceConfig
    """The search space."""
    strategy: StrategyConfig
    """The strategy that proposes genotypes."""
    num_trials: int
    """Genotypes proposed in all."""
    seed: int = 0
    """Seed of the strategy and of the workers' simulated trainings."""
    deterministic: bool = False
    """As in ``search_cells``."""
    history_lag: int = 8
    """As in ``search_cells``."""
    workers: SimulationConfig = field(default_factory=SimulationConfig)
    """Number, speed and failures of the simulated workers."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def search(self) -> SearchConfig:
        """Return the search that is simulated."""
        names = (
            "space", "strategy", "num_trials", "seed", "deterministic", "history_lag", "progress",
        )  # fmt: skip
        # Workers would measure a genotype's cost, and simulated ones do not.
        cost = CostConfig(measure="none")
        return SearchConfig(cost=cost, **{name: getattr(self, name) for name in names})


@tool(Args)
def main(run: Run[Args]) -> None:
    import optuna

    from backbone.io.files import write_json
    from search.analysis.simulation import simulate_search

    workers = run.args.workers
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The driver warns of every failed trial; of simulated ones the number is enough.
    logging.getLogger("search.study.driver").setLevel(logging.ERROR)
    result = simulate_search(run.args.search(), workers, run.out)
    path = run.out / "simulation.json"
    write_json(path, asdict(result))
    run.record()
    run.report(**asdict(result), result=path)
    print(
        f"{result.num_trials} trials on {workers.num_workers} workers: {result.num_failed} "
        f"failed, {result.num_lost} trainings repeated because their worker was lost\n"
        f"virtual time: {result.virtual_hours:.2f} h, the last {result.tail_hours:.2f} h of it "
        "waiting for running trainings\n"
        f"workers busy: {result.busy_percent_before_tail:.2f} % until the last trial was "
        f"handed out, {result.busy_percent:.2f} % until the end\n"
        f"driver: {result.driver_seconds_per_trial:.4f} s per trial, "
        f"{result.peak_gib:.2f} GiB"
    )
    print_line("result", path)


if __name__ == "__main__":
    main()
