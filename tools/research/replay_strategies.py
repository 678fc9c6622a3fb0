r"""Compare strategies on a recorded table: the trainings that each needs, over many seeds.

Writes replays.json and replays.png. Needs no training.

nasdet research replay-strategies
nasdet research replay-strategies 'strategies=[random,evolution]' num_seeds=20 \
    top_fraction=0.05
nasdet research replay-strategies \
    'strategies=[controller,{controller: {batch_size: 10, learning_rate: 0.003}}]'
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).parents[1]))  # modules that all tools share

from _cli import Run, tool
from _output import print_line
from backbone.config import require_at_least
from search.strategies.config import StrategyConfig

if TYPE_CHECKING:
    from search.analysis.replay import Efficiency, Replay
    from search.rewards.tabular import TableReward


@dataclass(kw_only=True, slots=True)
class Args:
    """Settings of ``replay_strategies``."""

    out: str
    """The folder for ``replays.json`` and ``replays.png``."""
    table: str
    """A file that ``tabulate_rewards`` wrote."""
    strategies: list[Any]
    """Choices of ``strategy``: names, or {controller: {batch_size: 10}} with settings changed."""
    num_seeds: int
    """Searches of the table by each strategy."""
    num_trials: int
    """Proposals of each search. Proposals of a known genotype count, but need no training."""
    top_fraction: float
    """The goal is a genotype among this fraction of the table's best, above 0 and at most 1."""
    seed: int = 0
    """Seed of the first search; the others have the next ones."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def __post_init__(self) -> None:
        require_at_least(1, num_seeds=self.num_seeds, num_trials=self.num_trials)
        if not 0 < self.top_fraction <= 1:
            raise ValueError(f"top_fraction must be above 0 and at most 1, not {self.top_fraction}")
        if not self.strategies:
            raise ValueError("strategies needs at least one name, such as random")


@tool(Args, renamed={"share": "top_fraction"})
def main(run: Run[Args]) -> None:
    args = run.args
    strategies = dict(named_strategy(entry) for entry in args.strategies)

    from backbone.io.files import write_json
    from backbone.io.provenance import to_builtins
    from backbone.io.text_tables import text_table
    from search.analysis.replay import draw_replays, summarize, top_fraction_threshold
    from search.rewards.tabular import TableConfig, TableReward

    table = TableReward(TableConfig(path=args.table))
    rewards = [row.reward for row in table.rows]
    target = top_fraction_threshold(table, args.top_fraction)
    replays = replay_all(table, strategies, args)
    summaries = [
        summarize(name, runs, target=target, table_size=len(rewards))
        for name, runs in replays.items()
    ]
    picture = run.out / "replays.png"
    draw_replays(replays, picture, target=target, best=max(rewards))
    header = {
        "table": dict(table.arguments["table"]), "num_genotypes": len(rewards),
        "target": target, "num_trials": args.num_trials, "first_seed": args.seed,
    }  # fmt: skip
    results = [
        as_record(one, replays[one.name], target) | {"settings": to_builtins(strategies[one.name])}
        for one in summaries
    ]
    path, record = run.out / "replays.json", header | {"strategies": results}
    write_json(path, record)
    run.record()
    run.report(**record, replays=path, plots=picture)
    num_goals = sum(reward >= target for reward in rewards)
    print(
        f"\nTrainings needed to reach one of the {num_goals} best of {len(rewards)} genotypes "
        f"(reward {target:.4f}), {args.num_seeds} seeds of {args.num_trials} proposals\n"
    )
    head = ["strategy", "quartiles", "mean", "95 % interval", "reached", "trained"]
    print(f"{text_table(head, [as_row(one) for one in summaries])}\n")
    print_line("replays", path)
    print_line("plots", picture)


def named_strategy(entry: Any) -> tuple[str, StrategyConfig]:
    """Return the name of an entry of ``strategies`` and its settings.

    Args:
        entry: a choice of the group, or {choice: {setting: value, ...}}.

    Raises:
        ValueError: if there is no such choice or setting, or it cannot have that value.
    """
    name: Any = entry
    changes: Any = {}
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, changes),) = entry.items()
    choices = StrategyConfig.preset_names()
    if name not in choices:
        raise ValueError(f"there is no strategy {name!r}; choose from {choices}")
    if not isinstance(changes, dict):
        raise ValueError(
            f"strategies: {name} needs settings such as {{batch_size: 10}}, not {changes!r}"
        )
    strategy = StrategyConfig.preset(name, **changes)
    return " ".join([name, *(f"{key}={value}" for key, value in changes.items())]), strategy


def replay_all(
    table: TableReward, strategies: dict[str, StrategyConfig], args: Args
) -> dict[str, list[Replay]]:
    """Search the table with every strategy and seed."""
    import optuna

    from backbone.io.progress import progress_bar
    from search.analysis.replay import replay

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it logs every study
    seeds = range(args.seed, args.seed + args.num_seeds)
    replays: dict[str, list[Replay]] = {name: [] for name in strategies}
    with progress_bar(
        total=len(strategies) * len(seeds), unit="search", shown=args.progress
    ) as bar:
        for name, strategy in strategies.items():
            bar.set_description_str(name)
            for seed in seeds:
                one = replay(table, strategy, seed=seed, num_trials=args.num_trials)
                replays[name].append(one)
                bar.update()
    return replays


def as_record(summary: Efficiency, runs: list[Replay], target: float) -> dict[str, Any]:
    """Return a strategy's results as JSON types; null: not reached."""
    needed = [run.trainings_to(target) for run in runs]
    return asdict(summary) | {
        "quartiles": [_finite(n) for n in summary.quartiles],
        "trainings_by_seed": [_finite(n) for n in needed],
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def as_row(summary: Efficiency) -> list[str]:
    """Return a strategy's results as the cells of a table row."""
    quartiles = " / ".join("-" if math.isinf(n) else f"{n:.0f}" for n in summary.quartiles)
    low, high = summary.mean_interval
    return [
        summary.name, quartiles, f"{summary.mean:.0f}", f"{low:.0f} to {high:.0f}",
        f"{summary.reached:.0%}", f"{summary.trained:.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
