"""Configuration of analyses. Imports no torch, so that settings are checked before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field

from backbone.config import require_at_least
from search.execution.base import ExecutorConfig
from search.space import SpaceConfig

MIN_GENOTYPES = 5
"""Minimum number of genotypes for an interval of a rank correlation."""


def require_interval(confidence: float, *, num_resamples: int) -> None:
    """Raise a ValueError if a bootstrap interval cannot have these settings."""
    require_at_least(100, num_resamples=num_resamples)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")


@dataclass(kw_only=True, slots=True)
class FidelityConfig:
    """Rank correlation of proxy rewards with a reference; see ``search.analysis.fidelity``."""

    num_genotypes: int
    """Number of random, distinct genotypes to reward; at least 5."""
    wanted_tau: float
    """Kendall's tau that a proxy has to reach, -1 to 1: the lower end of its interval."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    """Search space of the genotypes."""
    seed: int = 0
    """Seed of the genotypes and of the reference. The proxies, and the reference when it is
    compared with itself, use the next seed, so that shared luck is not taken for agreement."""
    confidence: float = 0.95
    """Confidence level of the two-sided intervals, above 0 and below 1."""
    num_resamples: int = 5000
    """Number of bootstrap resamples per interval, at least 100."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        require_at_least(MIN_GENOTYPES, num_genotypes=self.num_genotypes)
        if not -1 <= self.wanted_tau <= 1:
            raise ValueError(f"wanted_tau must be from -1 to 1, not {self.wanted_tau}")
        require_interval(self.confidence, num_resamples=self.num_resamples)


@dataclass(kw_only=True, slots=True)
class SupernetRankingConfig:
    """Rank correlation of a supernet with stand-alone training, on a table of rewards."""

    table: str
    """Rewards of stand-alone trainings; see ``search.rewards.tabular``."""
    num_genotypes: int = 0
    """Number of the table's genotypes to score, drawn at random; 0 for all."""
    best_fraction: float = 0.25
    """Fraction of the genotypes, the best by the table, whose order is also measured by itself,
    since a search has to tell these apart in the end; above 0, at most 1."""
    seed: int = 0
    """Seed of the drawn genotypes."""
    confidence: float = 0.95
    """Confidence level of the two-sided intervals, above 0 and below 1."""
    num_resamples: int = 5000
    """Number of bootstrap resamples per interval, at least 100."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        if self.num_genotypes:
            require_at_least(MIN_GENOTYPES, num_genotypes=self.num_genotypes)
        if not 0 < self.best_fraction <= 1:
            raise ValueError(
                f"best_fraction must be above 0 and at most 1, not {self.best_fraction}"
            )
        require_interval(self.confidence, num_resamples=self.num_resamples)


@dataclass(kw_only=True, slots=True)
class CellComparisonConfig:
    """Train genotypes alike, each at the width that gives all networks the same cost."""

    mult_adds: float
    """Multiply-adds of each network for one image, in millions."""
    num_seeds: int = 3
    """Trainings of each network."""
    seed: int = 1000
    """Seed of the first training; the others use the next ones. Not those of a search."""
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    """Where trainings run."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        require_at_least(1, num_seeds=self.num_seeds)
        if not self.mult_adds > 0:
            raise ValueError(f"mult_adds must be above 0 (millions), not {self.mult_adds}")


@dataclass(kw_only=True, slots=True)
class SimulationConfig:
    """Simulated workers, which wait instead of training."""

    num_workers: int = 500
    """Number of workers (paper, section 4: 500 GPUs)."""
    mean_seconds: float = 8640.0
    """Mean duration of a training that is no straggler, in seconds: 500 GPUs for 4 days make
    20,000 trainings (paper, section 4)."""
    spread: float = 0.3
    """Standard deviation of the logarithm of the duration, which is normally distributed."""
    straggler_fraction: float = 0.05
    """Fraction of trainings that take ``straggler_factor`` times as long, in [0, 1)."""
    straggler_factor: float = 3.0
    """Slowdown of a straggler, at least 1."""
    failed_fraction: float = 0.02
    """Fraction of trainings that fail at their end, in [0, 1)."""
    lost_fraction: float = 0.01
    """Fraction of trainings whose worker is lost before their end, in [0, 1); they are repeated."""

    def __post_init__(self) -> None:
        require_at_least(1, num_workers=self.num_workers, straggler_factor=self.straggler_factor)
        require_at_least(0, mean_seconds=self.mean_seconds, spread=self.spread)
        for name in ("straggler_fraction", "failed_fraction", "lost_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
