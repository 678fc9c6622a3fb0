"""Configuration for architecture search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backbone.cells.genotype import COMBINATIONS, NASNET_OPERATIONS
from backbone.config import MIN_SIDE_PX, MIN_WIDTH, STEMS, require_at_least

CELLS = ("normal", "reduction")
CONCATENATIONS = ("unused", "all")

RENAMED_SETTINGS: Mapping[str, str] = {
    "best_share": "best_fraction",
    "straggler_share": "straggler_fraction",
    "failed_share": "failed_fraction",
    "lost_share": "lost_fraction",
}
"""Former name of a setting -> its name now."""
RENAMED_CHOICES: Mapping[str, str] = {"reward=shared": "reward=supernet"}
"""Former choice of a group -> its name now."""

COST_MEASURES = ("none", "mult_adds", "parameters", "latency_ms")


@dataclass(kw_only=True, slots=True)
class SpaceConfig:
    """Which genotypes are searched."""

    operations: list[str] = field(default_factory=lambda: list(NASNET_OPERATIONS))
    """Candidate operations; the paper's 13 by default."""
    num_blocks: int = 5
    """B: blocks per cell (paper, section 3: 5)."""
    combinations: list[str] = field(default_factory=lambda: list(COMBINATIONS))
    """How a block may join its two results."""
    cells: list[str] = field(default_factory=lambda: list(CELLS))
    """``normal`` and ``reduction``, or ``normal`` alone, which then serves at both strides."""
    concat: str = "unused"
    """Which blocks a cell concatenates: those ``unused`` by other blocks, or ``all``."""
    distinct_sources: bool = False
    """Whether the two inputs of a block must differ."""


@dataclass(kw_only=True, slots=True)
class StrategyConfig:
    """Base of what can propose genotypes; the subclass chooses the sampler."""


@dataclass(kw_only=True, slots=True)
class RandomConfig(StrategyConfig):
    """Every decision uniformly at random (paper, section 3: the control of section 4.4)."""


@dataclass(kw_only=True, slots=True)
class ControllerConfig(StrategyConfig):
    """The paper's recurrent controller, trained with PPO (appendix A.2)."""

    batch_size: int = 20
    """Genotypes per update (paper, appendix A.3)."""
    num_units: int = 100
    """Hidden units of the one-layer LSTM (paper, appendix A.2), and of its embeddings."""
    initial_range: float = 0.1
    """Weights start uniformly in plus or minus this (paper, appendix A.2)."""
    learning_rate: float = 0.00035
    """Paper, appendix A.2. The optimizer is not in the paper; this is Adam."""
    entropy_weight: float = 1e-5
    """Of the entropy bonus (paper, appendix A.2)."""
    baseline_weight: float = 0.95
    """Of the past in the moving average of rewards (paper, appendix A.2), 0 to below 1."""
    clip: float = 0.2
    """PPO's limit of a decision's probability ratio. Not in the paper; PPO's usual value."""
    epochs_per_update: int = 4
    """Steps on each batch. Not in the paper; a usual value."""

    def __post_init__(self) -> None:
        require_at_least(
            1,
            batch_size=self.batch_size,
            num_units=self.num_units,
            epochs_per_update=self.epochs_per_update,
        )
        require_at_least(
            0,
            initial_range=self.initial_range,
            learning_rate=self.learning_rate,
            entropy_weight=self.entropy_weight,
            clip=self.clip,
        )
        if not 0 <= self.baseline_weight < 1:
            raise ValueError(f"baseline_weight must be in [0, 1), not {self.baseline_weight}")


@dataclass(kw_only=True, slots=True)
class EvolutionConfig(StrategyConfig):
    """Regularized evolution (Real et al. 2019)."""

    population_size: int = 100
    """P: the youngest so many trials are alive; until there are as many, trials are random (Real
    et al. 2019: 100)."""
    sample_size: int = 25
    """S: draws of a tournament, whose best becomes the parent (Real et al. 2019: 25)."""
    identity_probability: float = 0.05
    """Of a child like its parent (Real et al. 2019: 0.05), which then lives on."""

    def __post_init__(self) -> None:
        require_at_least(1, population_size=self.population_size, sample_size=self.sample_size)
        if not 0 <= self.identity_probability < 1:
            raise ValueError(
                f"identity_probability must be in [0, 1), not {self.identity_probability}"
            )


@dataclass(kw_only=True, slots=True)
class TpeConfig(StrategyConfig):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), multivariate."""

    num_startup_trials: int = 10
    """Random trials before the estimator takes over."""

    def __post_init__(self) -> None:
        require_at_least(1, num_startup_trials=self.num_startup_trials)


@dataclass(kw_only=True, slots=True)
class NsgaConfig(StrategyConfig):
    """Optuna's NSGA-II (Deb et al. 2002), for reward and cost together."""

    population_size: int = 50
    """Genotypes of a generation."""

    def __post_init__(self) -> None:
        require_at_least(2, population_size=self.population_size)


@dataclass(kw_only=True, slots=True)
class ExecutorConfig:
    """Where trials run. The subclass says; this one runs them in the search's own process."""


@dataclass(kw_only=True, slots=True)
class LocalConfig(ExecutorConfig):
    """Worker processes of this machine, each pinned to its share of the cores, or to a GPU."""

    num_workers: int = 0
    """How many; 0 for one per core, or as many as ``workers_per_gpu`` makes."""
    workers_per_gpu: int = 0
    """Workers that share a GPU, where their networks fit; 0 leaves the GPUs alone, so that every
    worker sees them all."""

    def __post_init__(self) -> None:
        require_at_least(0, num_workers=self.num_workers, workers_per_gpu=self.workers_per_gpu)


@dataclass(kw_only=True, slots=True)
class RayConfig(ExecutorConfig):
    """Actors on a Ray cluster."""

    address: str = ""
    """Of the cluster, as Ray takes it (``auto``, ``ray://host:10001``); empty for one that is
    started on this machine."""
    num_workers: int = 0
    """How many; 0 for as many as fit."""
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    """May be a fraction, where several networks fit on one GPU."""

    def __post_init__(self) -> None:
        require_at_least(
            0,
            num_workers=self.num_workers,
            cpus_per_worker=self.cpus_per_worker,
            gpus_per_worker=self.gpus_per_worker,
        )
        if not self.cpus_per_worker and not self.gpus_per_worker:
            raise ValueError(
                "a worker needs CPUs or GPUs; cpus_per_worker and gpus_per_worker are 0"
            )


@dataclass(kw_only=True, slots=True)
class PruningConfig:
    """Which trials are stopped early: asynchronous successive halving (Li et al. 2020)."""

    keep: float = 1.0
    """Share of trials that go on past each step at which the reward reports (1/3 for the usual
    halving by 3); 1 stops none."""
    keep_scored: float = 1.0
    """Share that is trained at all, by the training-free score; 1 trains all."""
    num_startup_trials: int = 10
    """Trials that are to have reported at a step before any is stopped there."""

    def __post_init__(self) -> None:
        require_at_least(1, num_startup_trials=self.num_startup_trials)
        for name in ("keep", "keep_scored"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {getattr(self, name)}")


@dataclass(kw_only=True, slots=True)
class CostConfig:
    """What the network of a genotype's cells costs, and how much a reward owes to its cost."""

    measure: str = "mult_adds"
    """``none``; ``mult_adds`` of one image; ``parameters``; or ``latency_ms``, measured on the
    device."""
    target: float = 0.0
    """Rewards are constrained to this cost, in the unit of ``measure``; 0: they are not."""
    front: bool = False
    """Whether a low cost is a second objective: strategies that can look for the whole Pareto
    front of reward and cost. (Every search writes the front of what it found.)"""
    exponent_within: float = 0.0
    """With a target, of a cost within it: the reward is multiplied by (target / cost) to this
    power (Tan et al. 2019, equations 2 and 3, their -alpha). 0 does not reward a lower cost."""
    exponent_beyond: float = 1.0
    """The same of a cost beyond the target (their -beta). 0 and 1 are their hard constraint, 0.07
    and 0.07 their soft one (section 3)."""
    num_cells: int = 2
    """N: normal cells per stack of the network that is costed: trunk without a head."""
    first_filters: int = 16
    """Width of its first stack's cells."""
    stem: str = "imagenet"
    """Its stem: ``imagenet`` or ``cifar``."""
    side_px: int = 224
    """Height and width of the images."""
    batch_size: int = 1
    """Images at a time whose latency is measured."""
    device: str = "auto"
    """Where latency is measured: torch's name of a device; ``auto`` is the first GPU if there is
    one."""
    num_threads: int = 1
    """Threads on the CPU then; 0 leaves torch's own number."""
    warmup_runs: int = 5
    """Runs before those that are timed."""
    timed_runs: int = 30
    """Runs whose median is the latency."""

    def __post_init__(self) -> None:
        if self.measure not in COST_MEASURES:
            raise ValueError(f"unknown measure {self.measure!r}; choose from {COST_MEASURES}")
        if self.stem not in STEMS:
            raise ValueError(f"unknown stem {self.stem!r}; choose from {STEMS}")
        require_at_least(MIN_WIDTH, first_filters=self.first_filters)
        require_at_least(MIN_SIDE_PX, side_px=self.side_px)
        require_at_least(
            1, num_cells=self.num_cells, batch_size=self.batch_size, timed_runs=self.timed_runs
        )
        require_at_least(
            0,
            target=self.target,
            exponent_within=self.exponent_within,
            exponent_beyond=self.exponent_beyond,
            num_threads=self.num_threads,
            warmup_runs=self.warmup_runs,
        )
        if (self.target or self.front) and self.measure == "none":
            raise ValueError(f"a target or a front needs a measure: {COST_MEASURES[1:]}")
        if self.target and self.front:
            raise ValueError("a cost is constrained by a target or minimized for a front, not both")


@dataclass(kw_only=True, slots=True)
class SearchConfig:
    """One search: which space, by which strategy, for how long."""

    strategy: StrategyConfig
    num_trials: int
    """Genotypes proposed in all, those that fail or repeat an earlier one included."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    seed: int = 0
    """Of the strategy and of every trial's training: all trials start from the same seed, so that
    they differ by their genotypes and not by their luck (common random numbers)."""
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    """Where trials run."""
    deterministic: bool = False
    """Whether several workers make the same trials whatever their speed: trial n is then proposed
    when the trials before n - ``history_lag`` are finished, and looks at these alone. One worker
    always makes the same trials."""
    history_lag: int = 8
    """See ``deterministic``; at least the workers less one, so that none waits for work. More
    bridges longer stragglers, with proposals from an older past."""
    pruning: PruningConfig = field(default_factory=PruningConfig)
    """Which trials are stopped early."""
    cost: CostConfig = field(default_factory=CostConfig)
    """What genotypes may cost: a constraint, or a second objective."""
    storage: str = ""
    """Any Optuna storage URL, which several searches may share, each with an output folder of its
    own; empty for a journal file in the output folder."""
    heartbeat_seconds: float = 10.0
    """Of a shared storage: how often each search says that it lives. The trials of one that is
    silent for six times as long are taken over by the others."""
    num_reevaluated: int = 3
    """The best so many genotypes are rewarded again with fresh seeds, and the winner is the best
    of these, since the best of many noisy rewards is partly luck; 0 takes the best trial."""
    reevaluation_seeds: int = 1
    """Fresh seeds per genotype then; their mean decides."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def __post_init__(self) -> None:
        if self.cost.front and isinstance(self.strategy, ControllerConfig):
            raise ValueError(
                "the controller learns from one number and cannot look for a front; give "
                "cost.target, or choose strategy=evolution, nsga2, tpe or random"
            )
        require_at_least(1, num_trials=self.num_trials, reevaluation_seeds=self.reevaluation_seeds)
        require_at_least(0, num_reevaluated=self.num_reevaluated, history_lag=self.history_lag)
        require_at_least(0.01, heartbeat_seconds=self.heartbeat_seconds)
