"""Configuration of rewards. Imports no torch, so that settings are checked before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from backbone.config import MIN_SIDE_PX, MIN_WIDTH, STEMS, require_at_least
from backbone.presets import Preset
from search.space import SpaceConfig

COST_MEASURES = ("none", "mult_adds", "parameters", "latency_ms")
PRECISIONS = ("auto", "float32", "bfloat16")
ZERO_COST_SCORES = ("synflow", "naswot", "grad_norm", "snip", "num_parameters")


@dataclass(kw_only=True, slots=True)
class RewardConfig(Preset):
    """Base class of reward configs; the subclass selects the reward."""

    preset_group: ClassVar[str] = "search/reward"
    preset_table: ClassVar[str] = "search.rewards:REWARDS"


@dataclass(kw_only=True, slots=True)
class ProxyConfig(RewardConfig):
    """Proxy task: a short training whose validation accuracy is a genotype's reward."""

    data_root: str
    """Image folder with ``train`` and ``val``, or the folder of CIFAR-10; images of one size."""
    num_cells: int
    """N: normal cells per stack, at least 1 (paper, appendix A.6: 2)."""
    first_filters: int
    """Width of the first stack's cells, a multiple of 4. The same for every genotype, so F of
    N @ F varies with the number of states that a cell concatenates."""
    stem_stride: int = 1
    """Stride of the stem. 1 as in the paper's CIFAR network; 2 computes all cells on a quarter of
    the pixels, as a network for larger images does, at a quarter to a third of the cost."""
    epochs: int
    """Passes over the training images (paper, appendix A.6: 20)."""
    rungs: list[int] = field(default_factory=list)
    """Epochs before the last one after which the accuracy is reported, so that ``pruning`` can stop
    the training there: increasing, at least 1."""
    batch_size: int
    """Images per step."""
    learning_rate: float
    """Initial learning rate; falls to 0 along half a cosine."""
    weight_decay: float
    """L2 penalty of every weight (paper, appendix A.6)."""
    max_train_images: int = 0
    """Maximum number of training images, the same for all trials; 0 for all."""
    max_val_images: int = 0
    """Maximum number of validation images, the same for all trials; 0 for all."""
    held_out_images: int = 0
    """Number of training images to validate on instead of the ``val`` split, on which the winner is
    then tested (paper, appendix A.1: 5000 of CIFAR-10's); 0 validates on the ``val`` split."""
    grayscale: bool = False
    """Convert images to grayscale, for data whose colors carry no information."""
    crop_padding_px: int = 4
    """Maximum random shift in pixels; borders are reflected."""
    horizontal_flip: bool = True
    """Random horizontal flip (p=0.5)."""
    gradient_clip: float = 5.0
    """Maximum norm of the whole gradient; 0 for no limit."""
    device: str = "auto"
    """torch device; ``auto`` is the first GPU if there is one, else the CPU."""
    num_threads: int = 0
    """Threads of a training on the CPU; 1 is right for small networks and where cores are shared,
    0 keeps torch's own number."""
    precision: str = "auto"
    """``float32``; ``bfloat16`` for mixed precision; ``auto`` for ``bfloat16`` on GPUs of compute
    capability 8.0 and above, and ``float32`` elsewhere."""
    cuda_graphs: bool = True
    """Capture the training step as a CUDA graph, if it can be captured."""
    download: bool = False
    """Download CIFAR-10 into ``data_root`` if it is missing."""

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
class SupernetConfig(ProxyConfig):
    """Weight sharing: one training for a whole space; see ``search.rewards.supernet``.

    The inherited settings are those of the supernet's training and of the network of each path.
    """

    weights: str
    """The supernet's ``.safetensors`` file; trained first if it does not exist."""
    space: SpaceConfig
    """Search space whose genotypes the supernet contains."""
    seed: int = 0
    """Seed of the supernet's training; the seed of a trial has no effect."""

    def __post_init__(self) -> None:
        ProxyConfig.__post_init__(self)
        if not self.weights.endswith(".safetensors"):
            raise ValueError(f"weights must name a .safetensors file, not {self.weights!r}")
        if self.rungs:
            raise ValueError(
                f"rungs must be empty with a supernet, whose trials are not trained, "
                f"not {self.rungs}"
            )


@dataclass(kw_only=True, slots=True)
class ZeroCostConfig(RewardConfig):
    """A score of the proxy network before any training; see ``search.rewards.zero_cost``."""

    score: str = "naswot"
    """``synflow``, ``naswot``, ``grad_norm``, ``snip``, or the baseline ``num_parameters``."""
    batch_size: int = 64
    """Training images in the one batch that is scored."""

    def __post_init__(self) -> None:
        if self.score not in ZERO_COST_SCORES:
            raise ValueError(f"unknown score {self.score!r}; choose from {ZERO_COST_SCORES}")
        # Batch normalization and NASWOT's kernel compare images with one another.
        require_at_least(2, batch_size=self.batch_size)


@dataclass(kw_only=True, slots=True)
class CostConfig:
    """Cost of the network built from a genotype, and its influence on the reward."""

    measure: str = "mult_adds"
    """``none``; ``mult_adds`` of one image; ``parameters``; or ``latency_ms``, measured on the
    device."""
    target: float = 0.0
    """Constrain rewards to this cost, in the unit of ``measure``; 0 for no constraint."""
    front: bool = False
    """Minimize the cost as a second objective, with a strategy that supports two. (Every search
    writes the Pareto front of its trials.)"""
    exponent_within: float = 0.0
    """With a target, for a cost within it: the reward is multiplied by (target / cost) to this
    power (Tan et al. 2019, equations 2 and 3, their -alpha). 0 does not reward a lower cost."""
    exponent_beyond: float = 1.0
    """The same for a cost beyond the target (their -beta). 0 and 1 are their hard constraint, 0.07
    and 0.07 their soft one (section 3)."""
    num_cells: int = 2
    """N: normal cells per stack of the measured network, a trunk without a head."""
    first_filters: int = 16
    """Width of the cells in the first stack of the measured network."""
    stem: str = "imagenet"
    """Stem of the measured network: ``imagenet`` or ``cifar``."""
    side_px: int = 224
    """Height and width of the images."""
    batch_size: int = 1
    """Images per batch when latency is measured."""
    device: str = "auto"
    """torch device on which latency is measured; ``auto`` is the first GPU if there is one, else
    the CPU."""
    num_threads: int = 1
    """CPU threads when latency is measured; 0 keeps torch's own number."""
    warmup_runs: int = 5
    """Untimed runs before the timed ones."""
    timed_runs: int = 30
    """Timed runs, whose median is the latency."""

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
