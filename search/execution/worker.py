"""The work of one trial, the same in every kind of worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backbone.cells.architecture import Architecture
from search.rewards.base import Pruned, Reward

if TYPE_CHECKING:
    from search.rewards.config import CostConfig

FAILURES = (ArithmeticError, MemoryError, RuntimeError)
"""Exceptions of a reward that fail the trial and not the search; see ``Reward``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An architecture to reward."""

    number: int
    """Number of the trial; identifies the outcome."""
    architecture: Architecture
    seed: int
    """Seed of the reward."""
    thresholds: Mapping[int, float] = field(default_factory=dict)
    """Step -> lowest value reported there with which the trial continues. Fixed when the task is
    submitted, so that a worker needs no answer in the middle of a training."""
    use_test_reward: bool = False
    """Whether to score on data that no trial is scored on; see ``Reward.test_reward``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a task."""

    number: int
    """Number of the trial."""
    reward: float | None = None
    """The last value reported if the trial was stopped early. None if it failed, or was stopped
    before any training."""
    seconds: float = 0.0
    """Time spent on the reward; 0 if it was taken from an earlier trial."""
    failure: str = ""
    """Reason why there is no reward; empty if the task succeeded."""
    pruned: bool = False
    """Whether the trial was stopped early."""
    cost: float | None = None
    """Cost of the architecture, if it is measured; see ``CostConfig``."""
    steps: Mapping[int, float] = field(default_factory=dict)
    """Step -> value reported there; step 0 is the training-free score."""


@dataclass(frozen=True)
class Evaluator:
    """Runs tasks. Is pickled for the workers if the executor has processes of its own."""

    reward: Reward
    score: Reward | None = None
    """Reported as step 0, before any training, so that a threshold can skip the training."""
    cost: CostConfig | None = None
    """How to measure an architecture's cost; None does not measure it."""

    def __call__(self, task: Task) -> Outcome:
        """Reward an architecture.

        Raises:
            Exception: whatever the reward raises besides ``FAILURES`` and ``Pruned``: a bug.
        """
        from search.rewards.cost import genotype_cost

        start = time.perf_counter()
        steps: dict[int, float] = {}
        value, failure, pruned, cost = None, "", False, None

        def report(step: int, value: float) -> None:
            steps[step] = value
            if value < task.thresholds.get(step, float("-inf")):
                raise Pruned

        try:
            if self.cost is not None and not task.use_test_reward:
                cost = genotype_cost(task.architecture, self.cost).value
            if self.score is not None and not task.use_test_reward:
                report(0, self.score(task.architecture, seed=task.seed, report=lambda *_: None))
            reward = self.reward.test_reward if task.use_test_reward else self.reward
            assert reward is not None
            value = float(reward(task.architecture, seed=task.seed, report=report))
        except Pruned:
            pruned = True
            last = max((step for step in steps if step > 0), default=None)
            value = None if last is None else steps[last]
        except FAILURES as error:
            failure = f"{type(error).__name__}: {error}"
        if value is not None and not 0 <= value < float("inf"):
            value, failure = (
                None,
                f"the reward is {value}; it must be a finite number of at least 0",
            )
        return Outcome(
            number=task.number,
            reward=value,
            seconds=time.perf_counter() - start,
            failure=failure,
            pruned=pruned,
            cost=cost,
            steps=steps,
        )
