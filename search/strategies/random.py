"""Random search: every decision drawn uniformly (Zoph et al. 2018, sections 3 and 4.4)."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from search.randomness import stream
from search.strategies.base import DecisionSampler
from search.strategies.config import RandomConfig


class RandomSampler(DecisionSampler[RandomConfig]):
    """Draw every decision uniformly; a trial depends on the seed and its number only."""

    def decide(self, past: Sequence[FrozenTrial], number: int) -> Sequence[int]:
        return self.space.sample(stream("random", self.seed, number))
