"""Configuration of the search strategies.

Imports neither Optuna nor torch, so that settings are checked before they are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from backbone.config import require_at_least
from backbone.presets import Preset


@dataclass(kw_only=True, slots=True)
class StrategyConfig(Preset):
    """Base of all strategy configs; the subclass selects the sampler."""

    preset_group: ClassVar[str] = "search/strategy"
    preset_table: ClassVar[str] = "search.strategies:STRATEGIES"

    supports_multi_objective: ClassVar[bool] = True
    """Whether the strategy can maximize the reward and minimize the cost at the same time."""


@dataclass(kw_only=True, slots=True)
class RandomConfig(StrategyConfig):
    """Every decision uniformly at random: the paper's control experiment (section 4.4)."""


@dataclass(kw_only=True, slots=True)
class ControllerConfig(StrategyConfig):
    """The paper's recurrent controller, trained with PPO (appendix A.2)."""

    supports_multi_objective: ClassVar[bool] = False

    batch_size: int = 20
    """Genotypes per update (paper, appendix A.3)."""
    num_units: int = 100
    """Hidden units of the one-layer LSTM and size of its embeddings (paper, appendix A.2)."""
    initial_range: float = 0.1
    """Weights are initialized uniformly in plus or minus this value (paper, appendix A.2)."""
    learning_rate: float = 0.00035
    """Learning rate of Adam. The rate is from the paper, appendix A.2, which does not name the
    optimizer."""
    entropy_weight: float = 1e-5
    """Weight of the entropy bonus (paper, appendix A.2)."""
    baseline_weight: float = 0.95
    """Decay of the moving average of rewards (paper, appendix A.2), in [0, 1)."""
    clip: float = 0.2
    """PPO's clipping range of a probability ratio, per decision. Not in the paper; PPO's usual
    value."""
    epochs_per_update: int = 4
    """Optimizer steps on each batch. Not in the paper; a usual value."""

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
    """P: number of most recent trials that are alive; earlier trials than that many are random
    (Real et al. 2019: 100)."""
    sample_size: int = 25
    """S: draws per tournament, whose best becomes the parent (Real et al. 2019: 25)."""
    identity_probability: float = 0.05
    """Probability that a child equals its parent, in [0, 1) (Real et al. 2019: 0.05)."""

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
    """Random trials before the estimator is used, at least 1."""

    def __post_init__(self) -> None:
        require_at_least(1, num_startup_trials=self.num_startup_trials)


@dataclass(kw_only=True, slots=True)
class NsgaConfig(StrategyConfig):
    """Optuna's NSGA-II (Deb et al. 2002), for reward and cost together."""

    population_size: int = 50
    """Genotypes per generation, at least 2."""

    def __post_init__(self) -> None:
        require_at_least(2, population_size=self.population_size)
