"""Search strategies: one table, read by the builder and by the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backbone.config import Choice, find_choice
from search.space import SearchSpace
from search.strategies.base import ALL_FINISHED, DecisionSampler, HistoryWindow, StrategyConfig
from search.strategies.controller import ControllerConfig
from search.strategies.evolution import EvolutionConfig
from search.strategies.optuna import NsgaConfig, TpeConfig
from search.strategies.random import RandomConfig

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
    history: HistoryWindow = ALL_FINISHED,
) -> DecisionSampler[Any]:
    """Build the sampler of a strategy.

    Args:
        config: selects and configures the strategy.
        space: the search space to sample from.
        seed: seed of all proposals.
        history: which earlier trials a proposal may depend on.

    Raises:
        TypeError: if no row of ``STRATEGIES`` has that config type.
    """
    sampler: DecisionSampler[Any] = find_choice(STRATEGIES, config).load()(
        space, config, seed=seed, history=history
    )
    return sampler
