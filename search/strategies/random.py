"""Random search: every decision drawn uniformly (Zoph et al. 2018, sections 3 and 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from search.randomness import stream
from search.strategies.base import DecisionSampler, StrategyConfig


@dataclass(kw_only=True, slots=True)
class RandomConfig(StrategyConfig):
    """Every decision uniformly at random: the paper's control experiment (section 4.4)."""


class RandomSampler(DecisionSampler[RandomConfig]):
    """Draw every decision uniformly; a trial depends on the seed and its number only."""

    def decide(self, past: Sequence[FrozenTrial], number: int) -> Sequence[int]:
        return self.space.sample(stream("random", self.seed, number))
