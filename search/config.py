"""What a search can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from backbone.config import MIN_WIDTH
from backbone.genotype import COMBINATIONS, NASNET_OPERATIONS

PRECISIONS = ("float32", "bfloat16")


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


ZERO_COST_SCORES = ("synflow", "naswot", "grad_norm", "snip", "num_parameters")


@dataclass(kw_only=True, slots=True)
class ZeroCostConfig(RewardConfig):
    """A score of the proxy network before any training; see ``search.zero_cost``."""

    score: str = "naswot"
    """``synflow``, ``naswot``, ``grad_norm``, ``snip``, or ``num_parameters``, the bar that the
    others have to clear."""
    batch_size: int = 64
    """Training images in the one batch that the score sees."""

    def __post_init__(self) -> None:
        if self.score not in ZERO_COST_SCORES:
            raise ValueError(f"unknown score {self.score!r}; choose from {ZERO_COST_SCORES}")
        # Batch normalization and NASWOT's kernel compare images with one another.
        _require_at_least(2, batch_size=self.batch_size)


MIN_GENOTYPES = 5
"""With fewer, an interval of a rank correlation says nothing."""


@dataclass(kw_only=True, slots=True)
class FidelityConfig:
    """How well cheap rewards order genotypes as a dear one does; see ``search.fidelity``."""

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
        _require_at_least(MIN_GENOTYPES, num_genotypes=self.num_genotypes)
        _require_at_least(100, num_resamples=self.num_resamples)
        if not -1 <= self.wanted_tau <= 1:
            raise ValueError(f"wanted_tau must be from -1 to 1, not {self.wanted_tau}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, not {self.confidence}")


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
