"""The work of one trial, the same in whatever process it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backbone.cells.genotype import Genotype
from search.rewards.base import Pruned, Reward

if TYPE_CHECKING:
    from search.rewards.config import CostConfig

FAILURES = (ArithmeticError, MemoryError, RuntimeError)
"""What a reward raises when it is the genotype's fault, or memory's; see ``Reward``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A genotype to reward."""

    number: int
    """The trial's; tells outcomes apart."""
    genotype: Genotype
    seed: int
    thresholds: Mapping[int, float] = field(default_factory=dict)
    """Step -> least value reported there with which the trial goes on. Decided when the task is
    given out, so that a worker needs nobody's answer in the middle of a training."""
    unseen: bool = False
    """Whether to score on data that the search never saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a task."""

    number: int
    reward: float | None = None
    """None if it failed, or was stopped before any value was reported."""
    pruned: bool = False
    """Whether it was stopped early; ``reward`` is then the last value reported."""
    failure: str = ""
    """Why there is no reward."""
    seconds: float = 0.0
    steps: Mapping[int, float] = field(default_factory=dict)
    """Step -> value, as reported on the way."""
    cost: float | None = None
    """The genotype's, where one is asked for."""


@dataclass(frozen=True)
class Evaluator:
    """Does tasks. Can be pickled if the reward can, and is then sent to workers."""

    reward: Reward
    score: Reward | None = None
    """Reported as step 0, before any training, so that a threshold there can spare it."""
    cost: CostConfig | None = None
    """What is to be said of a genotype's cost; None: nothing."""

    def __call__(self, task: Task) -> Outcome:
        """Reward a genotype.

        Raises:
            Exception: whatever a reward raises beside ``FAILURES`` and ``Pruned``: a bug.
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
            if self.cost is not None and not task.unseen:
                cost = genotype_cost(task.genotype, self.cost).value
            if self.score is not None and not task.unseen:
                report(0, self.score(task.genotype, seed=task.seed, report=lambda *_: None))
            reward = self.reward.test_reward if task.unseen else self.reward
            assert reward is not None
            value = float(reward(task.genotype, seed=task.seed, report=report))
        except Pruned:
            pruned = True
            last = max((step for step in steps if step > 0), default=None)
            value = None if last is None else steps[last]
        except FAILURES as error:
            failure = f"{type(error).__name__}: {error}"
        if value is not None and not 0 <= value < float("inf"):
            value, failure = None, f"the reward is {value}; it must be a number of at least 0"
        return Outcome(
            number=task.number,
            reward=value,
            pruned=pruned,
            failure=failure,
            seconds=time.perf_counter() - start,
            steps=steps,
            cost=cost,
        )
