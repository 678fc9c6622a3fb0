"""Configuration for architecture search."""

from __future__ import annotations

from dataclasses import dataclass, field

from backbone.cells.genotype import COMBINATIONS, NASNET_OPERATIONS
from backbone.config import MIN_SIDE_PX, MIN_WIDTH, STEMS, require_at_least

CELLS = ("normal", "reduction")
CONCATENATIONS = ("unused", "all")
PRECISIONS = ("auto", "float32", "bfloat16")
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
class RewardConfig:
    """Base of what can reward a genotype; the subclass chooses how."""


@dataclass(kw_only=True, slots=True)
class ProxyConfig(RewardConfig):
    """The cheap training whose validation accuracy is a genotype's reward."""

    data_root: str
    """Image folder with ``train`` and ``val``, or the place of CIFAR-10; images of one size."""
    num_cells: int
    """N: normal cells per stack, at least 1 (paper, appendix A.6: 2)."""
    first_filters: int
    """Width of the first stack's cells, a multiple of 4. The same for every genotype, so F of
    N @ F varies with the number of states that a cell concatenates."""
    stem_stride: int = 1
    """1 as in the paper's CIFAR network. 2 computes all cells on a quarter of the pixels, as a
    network for larger images does, at a quarter to a third of the cost."""
    epochs: int
    """Passes over the training images (paper, appendix A.6: 20)."""
    rungs: list[int] = field(default_factory=list)
    """Epochs before the last one after which the accuracy is reported, so that ``pruning`` can stop
    the training there: increasing, at least 1."""
    batch_size: int
    """Images per step."""
    learning_rate: float
    """At the first step; lowered to 0 along half a cosine."""
    weight_decay: float
    """L2 penalty of every weight (paper, appendix A.6)."""
    max_train_images: int = 0
    """Train on this many images, the same for all trials; 0 for all."""
    max_val_images: int = 0
    """Score on this many images, the same for all trials; 0 for all."""
    held_out_images: int = 0
    """Score on this many images taken out of the training split, and leave the ``val`` split
    alone, on which the winner is tested in the end (paper, appendix A.1: 5000 of CIFAR-10's); 0
    scores on the ``val`` split."""
    grayscale: bool = False
    """Whether images lose their colours, for data whose colours tell nothing."""
    crop_padding_px: int = 4
    """Images are shifted by up to this many pixels, reflected at the border."""
    horizontal_flip: bool = True
    """Whether half of the images are mirrored."""
    gradient_clip: float = 5.0
    """Greatest norm of the whole gradient; 0 for no limit."""
    device: str = "auto"
    """torch's name of a device; ``auto`` is the first GPU if there is one."""
    num_threads: int = 0
    """Threads of a training on the CPU; 1 is right for small networks and where cores are shared,
    0 leaves torch's own number."""
    precision: str = "auto"
    """``float32``; ``bfloat16`` for mixed precision; ``auto`` for ``bfloat16`` on GPUs that are
    built for it, and ``float32`` elsewhere."""
    cuda_graphs: bool = True
    """Whether a GPU replays a captured training step, where it can be captured."""
    download: bool = False
    """Whether CIFAR-10 may be fetched into ``data_root``."""

    def __post_init__(self) -> None:
        require_at_least(
            1, num_cells=self.num_cells, epochs=self.epochs, batch_size=self.batch_size
        )
        require_at_least(
            0,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            max_train_images=self.max_train_images,
            max_val_images=self.max_val_images,
            held_out_images=self.held_out_images,
            crop_padding_px=self.crop_padding_px,
            gradient_clip=self.gradient_clip,
            num_threads=self.num_threads,
        )
        if self.first_filters < MIN_WIDTH:
            raise ValueError(
                f"first_filters must be at least {MIN_WIDTH}, not {self.first_filters}"
            )
        if self.rungs != sorted({rung for rung in self.rungs if 1 <= rung < self.epochs}):
            raise ValueError(
                f"rungs must be increasing epochs from 1 to {self.epochs - 1}, not {self.rungs}"
            )
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2, not {self.stem_stride}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; choose from {PRECISIONS}")


@dataclass(kw_only=True, slots=True)
class SharedConfig(ProxyConfig):
    """Weight sharing: one training for a whole space; see ``search.rewards.supernet``.

    The other settings are those of this one training and of the network of each path.
    """

    weights: str
    """The trained network's ``.safetensors``. If it is not there, it is trained first."""
    space: SpaceConfig
    """All genotypes that it holds."""
    seed: int = 0
    """Of its training; a trial's seed changes nothing."""

    def __post_init__(self) -> None:
        ProxyConfig.__post_init__(self)
        if not self.weights.endswith(".safetensors"):
            raise ValueError(f"weights must name a .safetensors file, not {self.weights!r}")
        if self.rungs:
            raise ValueError("with shared weights trials are not trained, so there are no rungs")


ZERO_COST_SCORES = ("synflow", "naswot", "grad_norm", "snip", "num_parameters")


@dataclass(kw_only=True, slots=True)
class ZeroCostConfig(RewardConfig):
    """A score of the proxy network before any training; see ``search.rewards.zero_cost``."""

    score: str = "naswot"
    """``synflow``, ``naswot``, ``grad_norm``, ``snip``, or ``num_parameters``, the bar that the
    others have to clear."""
    batch_size: int = 64
    """Training images in the one batch that the score sees."""

    def __post_init__(self) -> None:
        if self.score not in ZERO_COST_SCORES:
            raise ValueError(f"unknown score {self.score!r}; choose from {ZERO_COST_SCORES}")
        # Batch normalization and NASWOT's kernel compare images with one another.
        require_at_least(2, batch_size=self.batch_size)


MIN_GENOTYPES = 5
"""With fewer, an interval of a rank correlation says nothing."""


@dataclass(kw_only=True, slots=True)
class FidelityConfig:
    """Rank correlation of proxy rewards with a reference; see ``search.analysis.fidelity``."""

    num_genotypes: int
    """Random genotypes that are rewarded, all different; at least 5."""
    wanted_tau: float
    """Kendall's tau that a cheap reward has to keep, -1 to 1: the lower end of its interval."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    seed: int = 0
    """Of the genotypes and of the dear reward; the cheap ones, and the dear one when it is
    measured against itself, have the next seed, so that shared luck is not taken for agreement."""
    confidence: float = 0.95
    """Of the two-sided intervals, above 0 and below 1."""
    num_resamples: int = 5000
    """Bootstrap samples behind an interval."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def __post_init__(self) -> None:
        require_at_least(MIN_GENOTYPES, num_genotypes=self.num_genotypes)
        require_at_least(100, num_resamples=self.num_resamples)
        if not -1 <= self.wanted_tau <= 1:
            raise ValueError(f"wanted_tau must be from -1 to 1, not {self.wanted_tau}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, not {self.confidence}")


@dataclass(kw_only=True, slots=True)
class SharingConfig:
    """How well shared weights order genotypes as stand-alone training does."""

    table: str
    """Rewards after stand-alone training; see ``search.rewards.tabular``."""
    num_genotypes: int = 0
    """Score so many of the table's, drawn at random; 0 for all."""
    best_share: float = 0.25
    """The order is also looked at among the best of them by the table, which a search has to tell
    apart in the end: this share, above 0, at most 1."""
    seed: int = 0
    """Of the draw."""
    confidence: float = 0.95
    """Of the two-sided intervals, above 0 and below 1."""
    num_resamples: int = 5000
    """Bootstrap samples behind an interval."""
    progress: bool = True
    """Whether progress bars are shown."""

    def __post_init__(self) -> None:
        if self.num_genotypes:
            require_at_least(MIN_GENOTYPES, num_genotypes=self.num_genotypes)
        require_at_least(100, num_resamples=self.num_resamples)
        if not 0 < self.best_share <= 1:
            raise ValueError(f"best_share must be above 0 and at most 1, not {self.best_share}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, not {self.confidence}")


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


@dataclass(kw_only=True, slots=True)
class CellComparisonConfig:
    """Cells trained alike, each at the width that makes all cost the same."""

    mult_adds: float
    """Of one image through each network: millions."""
    num_seeds: int = 3
    """Trainings of each network."""
    seed: int = 1000
    """Of the first training; the others have those after it. Other seeds than a search's."""
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    """Where trainings run."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def __post_init__(self) -> None:
        require_at_least(1, num_seeds=self.num_seeds)
        if not self.mult_adds > 0:
            raise ValueError(f"mult_adds must be above 0 (millions), not {self.mult_adds}")


@dataclass(kw_only=True, slots=True)
class SimulationConfig:
    """Workers that only pretend to train."""

    num_workers: int = 500
    """Paper, section 4: 500 GPUs."""
    mean_seconds: float = 8640.0
    """Of a training that is no straggler: 500 GPUs for 4 days make 20,000 (paper, section 4)."""
    spread: float = 0.3
    """Standard deviation of the logarithm of that time, which is normal."""
    straggler_share: float = 0.05
    """Share of trainings that take ``straggler_factor`` times as long."""
    straggler_factor: float = 3.0
    """At least 1."""
    failed_share: float = 0.02
    """Share that fails at its end."""
    lost_share: float = 0.01
    """Share whose worker is lost on the way; they are done again."""

    def __post_init__(self) -> None:
        require_at_least(1, num_workers=self.num_workers, straggler_factor=self.straggler_factor)
        require_at_least(0, mean_seconds=self.mean_seconds, spread=self.spread)
        for name in ("straggler_share", "failed_share", "lost_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
