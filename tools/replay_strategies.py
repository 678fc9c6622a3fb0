r"""Let strategies search a recorded table, over many seeds: how many trainings does each need.

Writes replays.json and replays.png. Costs no training.

python tools/replay_strategies.py
python tools/replay_strategies.py 'strategies=[random,evolution]' num_seeds=20 share=0.05
python tools/replay_strategies.py \
    'strategies=[controller,{controller: {batch_size: 10, learning_rate: 0.003}}]'
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import hydra
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from _entry import CONFIG_DIR, start_tool
from _run import plain_errors, start_run
from _search_schemas import ReplayStrategies

if TYPE_CHECKING:
    from search.analysis.replay import Efficiency, Replay
    from search.rewards.tabular import TableReward
    from search.strategies.base import StrategyConfig


@hydra.main(version_base=None, config_path="../conf", config_name="replay_strategies")
def main(config: DictConfig) -> None:
    with plain_errors():
        run = start_run(config)
        settings: ReplayStrategies = run.settings
        strategies = dict(named_strategy(entry) for entry in settings.strategies)

        from backbone.io.files import write_json
        from backbone.io.provenance import to_builtins
        from backbone.io.text_tables import text_table
        from search.analysis.replay import draw_replays, summarize, top_fraction_threshold
        from search.rewards.config import TableConfig
        from search.rewards.tabular import TableReward

        table = TableReward(TableConfig(path=settings.table))
        rewards = [row.reward for row in table.rows]
        target = top_fraction_threshold(table, settings.share)
        replays = replay_all(table, strategies, settings)
        found = [
            summarize(name, runs, target=target, table_size=len(rewards))
            for name, runs in replays.items()
        ]
        picture = run.out / "replays.png"
        draw_replays(replays, picture, target=target, best=max(rewards))
        about = {
            "table": dict(table.arguments["table"]), "num_genotypes": len(rewards),
            "target": target, "num_trials": settings.num_trials, "first_seed": settings.seed,
        }  # fmt: skip
        results = [
            as_record(one, replays[one.name], target)
            | {"settings": to_builtins(strategies[one.name])}
            for one in found
        ]
        write_json(run.out / "replays.json", about | {"strategies": results})
        run.record()
        num_goals = sum(reward >= target for reward in rewards)
        print(
            f"\nTrainings until one of the {num_goals} best of {len(rewards)} genotypes is found "
            f"(reward {target:.4f}), {settings.num_seeds} seeds of {settings.num_trials} proposals"
            "\n"
        )
        head = ["strategy", "quartiles", "mean", "95 % interval", "reached", "trained"]
        print(f"{text_table(head, [as_row(one) for one in found])}\n")
        print(f"replays: {run.out / 'replays.json'}\nplots: {picture}")


def named_strategy(entry: Any) -> tuple[str, StrategyConfig]:
    """Return what an entry of ``strategies`` is called and the settings that it stands for.

    Args:
        entry: a choice of the group, or {choice: {setting: value, ...}}.

    Raises:
        ValueError: if there is no such choice or setting, or it cannot have that value.
    """
    name: Any = entry
    changes: Any = {}
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, changes),) = entry.items()
    choices = sorted(path.stem for path in (CONFIG_DIR / "strategy").glob("*.yaml"))
    if name not in choices:
        raise ValueError(f"there is no strategy {name!r}; choose from {choices}")
    if not isinstance(changes, dict):
        raise ValueError(
            f"strategies: {name} wants settings such as {{batch_size: 10}}, not {changes!r}"
        )
    try:
        config = OmegaConf.merge(compose(f"strategy/{name}").strategy, changes)
        strategy: StrategyConfig = OmegaConf.to_object(config)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ValueError(f"strategies, {entry}: {str(error).splitlines()[0]}") from None
    return " ".join([name, *(f"{key}={value}" for key, value in changes.items())]), strategy


def replay_all(
    table: TableReward, strategies: dict[str, StrategyConfig], settings: ReplayStrategies
) -> dict[str, list[Replay]]:
    """Search the table by every strategy with every seed."""
    import optuna
    from tqdm import tqdm

    from search.analysis.replay import replay

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    seeds = range(settings.seed, settings.seed + settings.num_seeds)
    replays: dict[str, list[Replay]] = {name: [] for name in strategies}
    with tqdm(
        total=len(strategies) * len(seeds), unit="search", disable=not settings.progress
    ) as bar:
        for name, strategy in strategies.items():
            bar.set_description_str(name)
            for seed in seeds:
                one = replay(table, strategy, seed=seed, num_trials=settings.num_trials)
                replays[name].append(one)
                bar.update()
    return replays


def as_record(found: Efficiency, runs: list[Replay], target: float) -> dict[str, Any]:
    """Return a strategy's figures as JSON's types; null: not reached."""
    needed = [run.trainings_to(target) for run in runs]
    return asdict(found) | {
        "quartiles": [_finite(n) for n in found.quartiles],
        "trainings_by_seed": [_finite(n) for n in needed],
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def as_row(found: Efficiency) -> list[str]:
    """Return a strategy's figures as cells of a table."""
    quartiles = " / ".join("-" if math.isinf(n) else f"{n:.0f}" for n in found.quartiles)
    low, high = found.mean_interval
    return [
        found.name, quartiles, f"{found.mean:.0f}", f"{low:.0f} to {high:.0f}",
        f"{found.reached:.0%}", f"{found.trained:.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    start_tool(main, about=__doc__)
