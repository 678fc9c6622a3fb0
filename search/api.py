"""Search for cells from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backbone.config import find_choice
from search.analysis.report import write_report
from search.execution.base import ExecutorConfig
from search.rewards import REWARDS
from search.rewards.base import Reward
from search.rewards.config import CostConfig, RewardConfig
from search.space import SpaceConfig
from search.strategies.config import StrategyConfig
from search.study.config import SearchConfig
from search.study.pruning import PruningConfig
from search.study.results import SearchResult
from search.study.study import run_search
from search.study.trials import TrialRecord


def search_cells(  # noqa: PLR0913  # the settings of a search, by name
    reward: str | RewardConfig | Reward = "proxy_quick",
    *,
    out: str | Path,
    data_root: str | Path | None = None,
    num_trials: int = 40,
    strategy: str | StrategyConfig = "controller",
    space: str | SpaceConfig = "nasnet",
    executor: str | ExecutorConfig = "inline",
    cost: CostConfig | None = None,
    pruning: PruningConfig | None = None,
    seed: int = 0,
    num_reevaluated: int = 3,
    progress: bool = True,
    on_trial: Callable[[TrialRecord], None] | None = None,
) -> SearchResult:
    """Search for the cells with the highest reward.

    Writes ``cells.json``, which with a size is a backbone spec (``cells.json:2@384``),
    ``cells.png``, ``trials.csv`` and ``report.html``. A finished search of the same settings is not
    repeated; an interrupted one resumes, and one with more trials continues.

    Args:
        reward: name of a preset (``RewardConfig.preset_names()``), a config, or any object with
            the protocol ``Reward``, such as ``detection.DetectionReward``.
        out: folder of the search.
        data_root: images of a named reward: a folder with ``train`` and ``val``, or the folder of
            CIFAR-10; None: that of the preset.
        num_trials: number of proposed genotypes.
        strategy: name (``StrategyConfig.preset_names()``) or config.
        space: name (``SpaceConfig.preset_names()``) or config.
        executor: name (``ExecutorConfig.preset_names()``) or config: where trials run.
        cost: cost of genotypes, as a constraint or a second objective; None: not measured.
        pruning: early stopping of trials; None: none.
        seed: seed of the strategy and of every trial's training.
        num_reevaluated: number of best genotypes that are rewarded again with new seeds.
        progress: whether to show a progress bar.
        on_trial: called after each trial.

    Returns:
        ``path`` of ``cells.json``, the winner's ``genotype`` and ``reward``, ``seconds`` and more.

    Raises:
        FileNotFoundError: if the images are missing.
        ValueError: if a name or setting is invalid, or the space is impossible.
        RuntimeError: if another process searches in ``out``, or every trial failed.
    """
    config = SearchConfig(
        strategy=StrategyConfig.named(strategy),
        num_trials=num_trials,
        space=SpaceConfig.named(space),
        seed=seed,
        executor=ExecutorConfig.named(executor),
        deterministic=True,
        pruning=pruning or PruningConfig(),
        cost=cost or CostConfig(),
        num_reevaluated=num_reevaluated,
        progress=progress,
    )
    result = run_search(
        config, Path(out), reward=_build_reward(reward, data_root), on_trial=on_trial
    )
    write_report({"search": [Path(out)]}, Path(out) / "report.html")
    return result


def _build_reward(reward: str | RewardConfig | Reward, data_root: str | Path | None) -> Reward:
    if isinstance(reward, str):
        settings: dict[str, Any] = {} if data_root is None else {"data_root": str(data_root)}
        reward = RewardConfig.preset(reward, **settings)
    elif data_root is not None:
        raise ValueError("data_root is for a reward given by its name")
    if isinstance(reward, RewardConfig):
        built: Reward = find_choice(REWARDS, reward).load()(reward)
        return built
    return reward
