"""The paper's recurrent controller as a search strategy (Zoph et al. 2018, appendix A.2).

The network and PPO are in ``search.strategies.policy``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.randomness import stream
from search.space import SearchSpace
from search.strategies.base import (
    DecisionSampler,
    HistoryWindow,
    is_orphaned,
)
from search.strategies.config import ControllerConfig

FAILED_REWARD = 0.0
"""Reward that the controller learns from a failed trial, the lowest possible."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A sequence of decisions and its reward."""

    decisions: tuple[int, ...]
    reward: float


class Controller:
    """A policy trained on batches of rewarded proposals.

    Its state is a function of the seed and the batches learned; a proposal is a function of that
    state and the trial's number. Nothing else is random.
    """

    def __init__(self, space: SearchSpace, config: ControllerConfig, *, seed: int) -> None:
        from search.strategies.policy import Policy, PpoTrainer

        self.config = config
        self.seed = seed
        self.policy = Policy(
            space.choices,
            num_units=config.num_units,
            initial_range=config.initial_range,
            generator=stream("controller", seed),
        )
        self.trainer = PpoTrainer(
            self.policy,
            learning_rate=config.learning_rate,
            clip=config.clip,
            entropy_weight=config.entropy_weight,
        )
        self.num_batches = 0
        """Number of batches learned."""
        self.baseline: float | None = None
        """Moving average of the rewards learned; None before the first batch."""

    @classmethod
    def replay(
        cls,
        space: SearchSpace,
        config: ControllerConfig,
        *,
        seed: int,
        history: Sequence[Proposal],
    ) -> Controller:
        """Build a controller that has learned all complete batches of a history."""
        controller = cls(space, config, seed=seed)
        size = config.batch_size
        for end in range(size, len(history) + 1, size):
            controller.learn(history[end - size : end])
        return controller

    def propose(self, number: int) -> tuple[int, ...]:
        """Sample the decisions of the trial with that number."""
        return self.policy.sample(stream("proposal", self.seed, number))

    def learn(self, batch: Iterable[Proposal]) -> None:
        """Update the policy with one batch, treated as drawn from the current policy.

        With several workers a proposal may come from a slightly older policy; PPO's clipping
        bounds the step in either case.
        """
        batch = list(batch)
        self.num_batches += 1
        if not batch:
            return
        rewards = [proposal.reward for proposal in batch]
        # The first batch has no past rewards; its own mean is the closest estimate.
        baseline = sum(rewards) / len(rewards) if self.baseline is None else self.baseline
        self.trainer.update(
            [proposal.decisions for proposal in batch],
            [reward - baseline for reward in rewards],
            num_steps=self.config.epochs_per_update,
        )
        weight = self.config.baseline_weight
        for reward in rewards:
            baseline = weight * baseline + (1 - weight) * reward
        self.baseline = baseline


class ControllerSampler(DecisionSampler[ControllerConfig]):
    """Propose genotypes by the paper's controller.

    Trial n belongs to batch n // batch_size. The controller has learned the complete batches of
    the past up to the first incomplete one: with one worker all batches before trial n's, with
    several workers possibly one batch fewer. Any process can rebuild it from the study.
    """

    def __init__(
        self, space: SearchSpace, config: ControllerConfig, *, seed: int, history: HistoryWindow
    ) -> None:
        super().__init__(space, config, seed=seed, history=history)
        self._controller = self._new_controller()
        self._study_name: str | None = None

    def _new_controller(self) -> Controller:
        return Controller(self.space, self.config, seed=self.seed)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        if study.study_name != self._study_name:
            self._controller = self._new_controller()
            self._study_name = study.study_name
        return super().sample_relative(study, trial, search_space)

    def decide(self, past: Sequence[FrozenTrial], number: int) -> Sequence[int]:
        size = self.config.batch_size
        # An earlier trial that runs again must see the history that it saw the first time.
        if self._controller.num_batches * size > len(past):
            self._controller = self._new_controller()
        while True:
            start = self._controller.num_batches * size
            batch = past[start : start + size]
            if len(batch) < size or not all(trial.state.is_finished() for trial in batch):
                return self._controller.propose(number)
            self._controller.learn(p for t in batch if (p := self._proposal(t)) is not None)

    def _proposal(self, trial: FrozenTrial) -> Proposal | None:
        """Return what the controller learns from a trial, or None if it learns nothing."""
        decisions = self.decisions_of(trial)
        if decisions is None or is_orphaned(trial):
            return None
        if trial.state is TrialState.PRUNED and trial.value is None:
            return None  # stopped before it was trained
        return Proposal(decisions, FAILED_REWARD if trial.value is None else trial.value)
