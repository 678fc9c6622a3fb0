"""Early stopping of trials: asynchronous successive halving.

Li et al. 2020, "A system for massively parallel hyperparameter tuning", algorithm 2: a trial
continues if it is among the best fraction of those that reported at a step so far, without waiting
for a rung to fill.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backbone.config import require_at_least
from search.execution.worker import Outcome


@dataclass(kw_only=True, slots=True)
class PruningConfig:
    """Early stopping of trials: asynchronous successive halving (Li et al. 2020)."""

    keep: float = 1.0
    """Fraction of trials that continue past each step at which the reward reports, in (0, 1]; the
    usual halving by 3 is 1/3, and 1 stops none."""
    keep_scored: float = 1.0
    """Fraction of trials that are trained, by the training-free score, in (0, 1]; 1 trains all."""
    num_startup_trials: int = 10
    """Number of trials that must report at a step before any is stopped there, at least 1."""

    def __post_init__(self) -> None:
        require_at_least(1, num_startup_trials=self.num_startup_trials)
        for name in ("keep", "keep_scored"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {getattr(self, name)}")


def stopping_thresholds(past: Iterable[Outcome], config: PruningConfig) -> dict[int, float]:
    """Return step -> lowest value with which a new trial continues there.

    Args:
        past: the trials to compare with.
        config: the fractions to keep.
    """
    values: dict[int, list[float]] = {}
    for outcome in past:
        for step, value in outcome.steps.items():
            values.setdefault(step, []).append(value)
    # At the last step of a whole training there is nothing left to save.
    last = max(values, default=0)
    fractions = {step: config.keep if step else config.keep_scored for step in values}
    return {
        step: top_fraction_threshold(reported, fractions[step])
        for step, reported in values.items()
        if len(reported) >= config.num_startup_trials
        and fractions[step] < 1
        and step < max(last, 1)
    }


def top_fraction_threshold(values: Sequence[float], fraction: float) -> float:
    """Return the lowest of the best ``fraction`` of some values, at least one of them."""
    return sorted(values, reverse=True)[max(math.ceil(fraction * len(values)), 1) - 1]
