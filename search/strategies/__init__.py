"""Search strategies: one table, read by the builder and by the command line.

Importing this package loads neither Optuna nor torch; a strategy's module is imported when the
strategy is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backbone.config import Choice, find_choice
from search.space import SearchSpace
from search.strategies.config import (
    ControllerConfig,
    EvolutionConfig,
    NsgaConfig,
    RandomConfig,
    StrategyConfig,
    TpeConfig,
)

if TYPE_CHECKING:
    from search.strategies.base import DecisionSampler, HistoryWindow

STRATEGIES: Mapping[str, Choice] = {
    "random": Choice(RandomConfig, "search.strategies.random:RandomSampler"),
    "controller": Choice(ControllerConfig, "search.strategies.controller:ControllerSampler"),
    "evolution": Choice(EvolutionConfig, "search.strategies.evolution:EvolutionSampler"),
    "tpe": Choice(TpeConfig, "search.strategies.optuna:TpeSampler"),
    "nsga2": Choice(NsgaConfig, "search.strategies.optuna:NsgaSampler"),
}
"""Name of a strategy -> its config type and its sampler, a ``DecisionSampler``."""


def build_sampler(
    config: StrategyConfig,
    space: SearchSpace,
    *,
    seed: int,
    history: HistoryWindow | None = None,
) -> DecisionSampler[Any]:
    """Build the sampler of a strategy.

    Args:
        config: selects and configures the strategy.
        space: the search space to sample from.
        seed: seed of all proposals.
        history: which earlier trials a proposal may depend on; None: all that are finished.

    Raises:
        TypeError: if no row of ``STRATEGIES`` has that config type.
    """
    from search.strategies.base import ALL_FINISHED

    sampler: DecisionSampler[Any] = find_choice(STRATEGIES, config).load()(
        space, config, seed=seed, history=history or ALL_FINISHED
    )
    return sampler
