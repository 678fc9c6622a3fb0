"""What a search can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from backbone.config import MIN_SIDE_PX, MIN_WIDTH, STEMS
from backbone.genotype import COMBINATIONS, NASNET_OPERATIONS

PRECISIONS = ("float32", "bfloat16")
COST_MEASURES = ("none", "mult_adds", "parameters", "latency_ms")


def _require_at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= least:  # refuses NaN too
            raise ValueError(f"{name} must be at least {least}, not {value}")


@dataclass(kw_only=True, slots=True)
class SpaceConfig:
    """Which genotypes are searched."""

    operations: list[str] = field(default_factory=lambda: list(NASNET_OPERATIONS))
    """Candidate operations; the paper's 13 by default."""
    num_blocks: int = 5
    """B: blocks per cell (paper, section 3: 5)."""
    combinations: list[str] = field(default_factory=lambda: list(COMBINATIONS))
    """How a block may join its two results."""


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
        _require_at_least(
            1,
            batch_size=self.batch_size,
            num_units=self.num_units,
            epochs_per_update=self.epochs_per_update,
        )
        _require_at_least(
            0,
            initial_range=self.initial_range,
            learning_rate=self.learning_rate,
            entropy_weight=self.entropy_weight,
            clip=self.clip,
        )
        if not 0 <= self.baseline_weight < 1:
            raise ValueError(f"baseline_weight must be in [0, 1), not {self.baseline_weight}")


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
    alone (paper, appendix A.1: 5000 of CIFAR-10's); 0 scores on the ``val`` split."""
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
    precision: str = "float32"
    """``float32``, or ``bfloat16`` for mixed precision."""
    download: bool = False
    """Whether CIFAR-10 may be fetched into ``data_root``."""

    def __post_init__(self) -> None:
        _require_at_least(
            1, num_cells=self.num_cells, epochs=self.epochs, batch_size=self.batch_size
        )
        _require_at_least(
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
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2, not {self.stem_stride}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; choose from {PRECISIONS}")


@dataclass(kw_only=True, slots=True)
class CostConfig:
    """What the network of a genotype's cells costs, and how much a reward owes to its cost."""

    measure: str = "none"
    """``none``; ``mult_adds`` of one image; ``parameters``; or ``latency_ms``, measured on the
    device."""
    target: float = 0.0
    """Rewards are constrained to this cost, in the unit of ``measure``; 0: there is no such cost,
    and what is found is the Pareto front of reward and cost."""
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
        _require_at_least(MIN_WIDTH, first_filters=self.first_filters)
        _require_at_least(MIN_SIDE_PX, side_px=self.side_px)
        _require_at_least(
            1, num_cells=self.num_cells, batch_size=self.batch_size, timed_runs=self.timed_runs
        )
        _require_at_least(
            0,
            target=self.target,
            exponent_within=self.exponent_within,
            exponent_beyond=self.exponent_beyond,
            num_threads=self.num_threads,
            warmup_runs=self.warmup_runs,
        )
        if self.target and self.measure == "none":
            raise ValueError(f"target {self.target} needs a measure: {COST_MEASURES[1:]}")


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
    storage: str = ""
    """Any Optuna storage URL; empty for a journal file in the output folder."""
    num_reevaluated: int = 3
    """The best so many genotypes are rewarded again with fresh seeds, and the winner is the best
    of these, since the best of many noisy rewards is partly luck; 0 takes the best trial."""
    reevaluation_seeds: int = 1
    """Fresh seeds per genotype then; their mean decides."""
    progress: bool = True
    """Whether a progress bar is shown."""

    def __post_init__(self) -> None:
        _require_at_least(1, num_trials=self.num_trials, reevaluation_seeds=self.reevaluation_seeds)
        _require_at_least(0, num_reevaluated=self.num_reevaluated)
