"""What the tools around searches take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from _run import LoggerConfig
from search.analysis.config import (
    CellComparisonConfig,
    FidelityConfig,
    SimulationConfig,
    SupernetRankingConfig,
)
from search.execution.base import ExecutorConfig
from search.rewards.config import CostConfig, ProxyConfig, SupernetConfig, ZeroCostConfig
from search.space import SpaceConfig
from search.strategies.base import StrategyConfig
from search.study.config import SearchConfig


@dataclass(kw_only=True, slots=True)
class SearchCells(SearchConfig):
    """What ``search_cells`` takes."""

    out: str
    """The run's folder."""
    reward: Any
    """What rewards a genotype: settings of a reward that ``build_reward`` knows."""
    zero_cost: ZeroCostConfig | None = None
    """A training-free score, with a proxy as the reward: of all trials the best share by it,
    ``pruning.keep_scored``, is trained."""
    control: bool = False
    """Whether a random search of equal budget follows, in ``out``/control, for the report."""
    logger: LoggerConfig
    """Where figures are logged."""

    def __post_init__(self) -> None:
        SearchConfig.__post_init__(self)
        if self.zero_cost is not None and not isinstance(self.reward, ProxyConfig):
            raise ValueError("zero_cost scores the network of a proxy; choose reward=proxy_quick")
        if (self.zero_cost is None) != (self.pruning.keep_scored == 1):
            raise ValueError(
                "zero_cost, a score such as zero_cost={score: naswot}, and pruning.keep_scored, "
                "the share that it lets through, go together"
            )


@dataclass(kw_only=True, slots=True)
class MeasureFidelity(FidelityConfig):
    """What ``measure_fidelity`` takes."""

    out: str
    """The run's folder."""
    reward: ProxyConfig
    """The dear reward, a proxy training."""
    cheap: list[dict[str, Any]]
    """Cheap rewards: what each changes in the dear one's settings, such as {epochs: 1}."""
    zero_cost: list[str]
    """Scores without training, cheap rewards too; see ``search/zero_cost.py``."""
    zero_cost_batch_size: int = 64
    """Images that such a score sees."""
    logger: LoggerConfig
    """Where figures are logged."""

    def __post_init__(self) -> None:
        FidelityConfig.__post_init__(self)
        if isinstance(self.reward, SupernetConfig):
            raise ValueError("shared weights are compared with a table: see measure_sharing")
        for score in self.zero_cost:
            ZeroCostConfig(score=score, batch_size=self.zero_cost_batch_size)


@dataclass(kw_only=True, slots=True)
class MeasureSharing(SupernetRankingConfig):
    """What ``measure_sharing`` takes."""

    out: str
    """The run's folder."""
    reward: SupernetConfig
    """The shared network; its space is the table's."""
    logger: LoggerConfig
    """Where figures are logged."""


@dataclass(kw_only=True, slots=True)
class CompareCells(CellComparisonConfig):
    """What ``compare_cells`` takes."""

    out: str
    """The run's folder."""
    cells: list[str]
    """Published cells by name, or files with cells."""
    reward: ProxyConfig
    """The training; ``first_filters`` follows from ``mult_adds``."""
    logger: LoggerConfig
    """Where figures are logged."""

    def __post_init__(self) -> None:
        CellComparisonConfig.__post_init__(self)
        if len(set(self.cells)) != len(self.cells) or not self.cells:
            raise ValueError(f"cells must be some different ones, not {self.cells}")


@dataclass(kw_only=True, slots=True)
class BenchmarkProxy:
    """What ``benchmark_proxy`` takes."""

    out: str
    """The run's folder."""
    reward: ProxyConfig
    """The training that is timed."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    """Where the genotypes are drawn from."""
    num_genotypes: int = 4
    """Random genotypes; all contenders train the same ones."""
    rounds: int = 3
    """How often each contender does; the median counts."""
    loader_workers: list[int] = field(default_factory=lambda: [0, 2])
    """Plain loops with so many worker processes in their loaders; the faster one is the bar."""
    workers: list[int] = field(default_factory=lambda: [1, 2])
    """Proxies at the same time, each in a process of its own."""
    seed: int = 0
    """Of the genotypes and of every training."""

    def __post_init__(self) -> None:
        if self.num_genotypes < 1 or self.rounds < 1:
            raise ValueError(
                "num_genotypes and rounds must be at least 1, not "
                f"{self.num_genotypes} and {self.rounds}"
            )
        if not self.loader_workers or min(self.loader_workers) < 0:
            raise ValueError(f"loader_workers must be some of 0 or more, not {self.loader_workers}")
        if not self.workers or min(self.workers) < 1:
            raise ValueError(f"workers must be some of 1 or more, not {self.workers}")


@dataclass(kw_only=True, slots=True)
class TabulateRewards:
    """What ``tabulate_rewards`` takes."""

    out: str
    """The folder for ``rewards.jsonl``; a table of the same things that is there is completed."""
    space: SpaceConfig
    """Whose genotypes; a space of at most a million sequences of decisions."""
    reward: Any
    """What rewards a genotype: settings of a reward that ``build_reward`` knows."""
    executor: ExecutorConfig
    """Where trainings run."""
    cost: CostConfig = field(default_factory=CostConfig)
    """What the table says of each genotype's cost."""
    seed: int = 0
    """Of every training."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def __post_init__(self) -> None:
        if self.cost.target or self.cost.front:
            raise ValueError(
                "a table holds rewards and costs as they are; cost.target and "
                "cost.front belong to a search"
            )


@dataclass(kw_only=True, slots=True)
class ReplayStrategies:
    """What ``replay_strategies`` takes."""

    out: str
    """The folder for ``replays.json`` and ``replays.png``."""
    table: str
    """A file that ``tabulate_rewards`` wrote."""
    strategies: list[Any]
    """Choices of ``strategy``: names, or {controller: {batch_size: 10}} with settings changed."""
    num_seeds: int
    """How often each strategy searches the table."""
    num_trials: int
    """Proposals of each search. Those of a genotype that it knows are counted, and cost no
    training."""
    share: float
    """The goal is a genotype of the table's best share, above 0 and at most 1."""
    seed: int = 0
    """Of the first search; the others have the next ones."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def __post_init__(self) -> None:
        for name in ("num_seeds", "num_trials"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share}")
        if not self.strategies:
            raise ValueError("strategies needs at least one name, such as random")


@dataclass(kw_only=True, slots=True)
class SimulateSearch:
    """What ``simulate_search`` takes."""

    out: str
    """The folder for ``simulation.json`` and the search's journal."""
    space: SpaceConfig
    """Where it searches."""
    strategy: StrategyConfig
    """What proposes genotypes."""
    num_trials: int
    """Genotypes proposed in all."""
    seed: int = 0
    """Of the strategy and of what befalls the workers."""
    deterministic: bool = False
    """As in ``search_cells``."""
    history_lag: int = 8
    """As in ``search_cells``."""
    workers: SimulationConfig = field(default_factory=SimulationConfig)
    """What they do with their time."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def search(self) -> SearchConfig:
        """Return the search that is simulated."""
        names = (
            "space", "strategy", "num_trials", "seed", "deterministic", "history_lag", "progress",
        )  # fmt: skip
        # What a genotype costs is for workers to measure, and these do nothing.
        cost = CostConfig(measure="none")
        return SearchConfig(cost=cost, **{name: getattr(self, name) for name in names})


@dataclass(kw_only=True, slots=True)
class CompareSearches:
    """What ``compare_searches`` takes."""

    out: str
    """The folder for the page and its pictures."""
    searches: Any
    """Name -> folders of finished searches that differ by their seeds only."""

    def __post_init__(self) -> None:
        # Hydra lets no command line put keys into a typed dict.
        given = self.searches
        groups = list(given.values()) if isinstance(given, dict) else []
        if not groups or not all(isinstance(folders, list) and folders for folders in groups):
            raise ValueError(
                f"searches wants folders for every name, as in {{random: [runs/a, runs/b]}}, not "
                f"{given}"
            )
