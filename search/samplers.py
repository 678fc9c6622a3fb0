"""Strategies as Optuna samplers: each proposal is a function of a seed and the study's history."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.config import ControllerConfig, RandomConfig, StrategyConfig
from search.controller import Controller, Proposal
from search.randomness import stream
from search.space import SearchSpace

FAILED_REWARD = 0.0
"""What a failed trial teaches: rewards are never lower."""


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return one Optuna parameter per choice, its value an option's number."""
    return {choice.name: IntDistribution(0, choice.num_options - 1) for choice in space.choices}


class DecisionSampler(BaseSampler):
    """Base of samplers that make all decisions of a genotype at once."""

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        self.space = space
        self.seed = seed

    @abstractmethod
    def decide(self, study: Study, number: int) -> Sequence[int]:
        """Return the decisions for the trial of that number."""

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> dict[str, BaseDistribution]:
        return distributions(self.space)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        decisions = self.decide(study, trial.number)
        return {c.name: d for c, d in zip(self.space.choices, decisions, strict=True)}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> NoReturn:
        raise ValueError(f"{param_name!r} is not a choice of this search space")


class RandomSampler(DecisionSampler):
    """Draw every decision uniformly; a trial's depend on the seed and its number only."""

    def decide(self, study: Study, number: int) -> Sequence[int]:
        return self.space.sample(stream("random", self.seed, number))


class ControllerSampler(DecisionSampler):
    """Propose by the paper's controller.

    Trial n belongs to batch n // batch_size. The controller has learnt the study's complete
    batches up to the first incomplete one: with one worker all before trial n's, with several
    perhaps a batch fewer. Any process can rebuild it from the study.
    """

    def __init__(self, space: SearchSpace, config: ControllerConfig, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        self.config = config
        self._controller = Controller(space, config, seed=seed)
        self._study_name: str | None = None

    def decide(self, study: Study, number: int) -> Sequence[int]:
        return self._caught_up(study).propose(number)

    def _caught_up(self, study: Study) -> Controller:
        if study.study_name != self._study_name:
            self._controller = Controller(self.space, self.config, seed=self.seed)
            self._study_name = study.study_name
        trials = study.get_trials(deepcopy=False)
        size = self.config.batch_size
        while True:
            start = self._controller.num_batches * size
            batch = trials[start : start + size]
            if len(batch) < size or not all(trial.state.is_finished() for trial in batch):
                return self._controller
            self._controller.learn(p for t in batch if (p := self._proposal(t)) is not None)

    def _proposal(self, trial: FrozenTrial) -> Proposal | None:
        names = [choice.name for choice in self.space.choices]
        if not trial.params.keys() >= set(names):
            return None  # failed from outside before anything was decided: teaches nothing
        reward = FAILED_REWARD if trial.value is None else trial.value
        return Proposal(tuple(trial.params[name] for name in names), reward)


def build_sampler(config: StrategyConfig, space: SearchSpace, *, seed: int) -> BaseSampler:
    """Build the sampler of a strategy.

    Raises:
        TypeError: if there is none for a config of that type.
    """
    match config:
        case RandomConfig():
            return RandomSampler(space, seed=seed)
        case ControllerConfig():
            return ControllerSampler(space, config, seed=seed)
        case _:
            raise TypeError(f"no strategy for {type(config).__name__}")
