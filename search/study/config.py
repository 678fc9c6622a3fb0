"""Configuration of a search."""

from __future__ import annotations

from dataclasses import dataclass, field

from backbone.config import require_at_least
from search.execution.base import ExecutorConfig
from search.rewards.config import CostConfig
from search.space import SpaceConfig
from search.strategies import STRATEGIES
from search.strategies.config import StrategyConfig
from search.study.pruning import PruningConfig


class SearchError(RuntimeError):
    """A search that cannot run, or that has no result."""


@dataclass(kw_only=True, slots=True)
class SearchConfig:
    """One search: its space, its strategy and its budget."""

    strategy: StrategyConfig
    """The strategy that proposes genotypes."""
    num_trials: int
    """Total number of proposed genotypes, including those that fail or repeat an earlier one."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    """The genotypes to choose from."""
    seed: int = 0
    """Seed of the strategy and of every trial's training. All trials train from the same seed, so
    that they differ by their genotypes only (common random numbers)."""
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    """Where trials run."""
    deterministic: bool = False
    """Whether several workers produce the same trials regardless of their speed. Trial n is then
    proposed when all trials before n - ``history_lag`` are finished, from these trials only. One
    worker always produces the same trials."""
    history_lag: int = 8
    """Number of most recent trials that a proposal ignores with ``deterministic``; at least the
    number of workers minus one, so that no worker waits. A larger lag tolerates longer stragglers
    at the price of proposals from an older history."""
    pruning: PruningConfig = field(default_factory=PruningConfig)
    """Early stopping of trials."""
    cost: CostConfig = field(default_factory=CostConfig)
    """Cost of genotypes, as a constraint or a second objective."""
    storage: str = ""
    """Any Optuna storage URL, which several searches may share, each with an output folder of its
    own; empty for a journal file in the output folder."""
    heartbeat_seconds: float = 10.0
    """Seconds between the heartbeats of a search in a shared storage. After 6 missed heartbeats
    the other searches take over its running trials."""
    num_reevaluated: int = 3
    """Number of best genotypes that are rewarded again with new seeds; the winner is the best of
    these, since the best of many noisy rewards is partly luck. 0 takes the best trial."""
    reevaluation_seeds: int = 1
    """New seeds per genotype in the reevaluation; their mean decides."""
    progress: bool = True
    """Whether to show a progress bar."""

    def __post_init__(self) -> None:
        if self.cost.front and not self.strategy.supports_multi_objective:
            names = {choice.config: name for name, choice in STRATEGIES.items()}
            name = names.get(type(self.strategy), type(self.strategy).__name__)
            others = [names[kind] for kind in names if kind.supports_multi_objective]
            raise ValueError(
                f"strategy={name} maximizes a single objective and cannot search for a Pareto "
                f"front (cost.front); set cost.target, or choose a strategy of {others}"
            )
        require_at_least(1, num_trials=self.num_trials, reevaluation_seeds=self.reevaluation_seeds)
        require_at_least(0, num_reevaluated=self.num_reevaluated, history_lag=self.history_lag)
        require_at_least(0.01, heartbeat_seconds=self.heartbeat_seconds)
