"""Strategies as Optuna samplers: each proposal is a function of a seed and of the trials before.

Which trials those are is the ``Horizon``'s matter: all that are finished, or, for a search that
several workers must be able to repeat, a fixed part of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.config import (
    ControllerConfig,
    EvolutionConfig,
    NsgaConfig,
    RandomConfig,
    StrategyConfig,
    TpeConfig,
)
from search.randomness import stream
from search.space import SearchSpace
from search.strategies.controller import Controller, Proposal
from search.strategies.evolution import choose_parent, mutate

FAILED_REWARD = 0.0
"""What a failed trial teaches: rewards are never lower."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """Which trials a new one may look at."""

    lag: int | None = None
    """None: all that are finished. Otherwise trial n looks at the trials before n - ``lag``, which
    must be finished when it is proposed."""

    def end(self, number: int) -> int | None:
        """Return the number of the first trial that trial ``number`` does not see, if any."""
        return None if self.lag is None else max(number - self.lag, 0)

    def past(self, trials: Sequence[FrozenTrial], number: int) -> Sequence[FrozenTrial]:
        """Return the trials before the end of trial ``number``'s sight, unfinished ones too."""
        return trials[: self.end(number)]

    def may_propose(self, number: int, first_unfinished: int) -> bool:
        """Tell whether all that trial ``number`` is to look at is finished."""
        end = self.end(number)
        return end is None or first_unfinished >= end


def was_lost(trial: FrozenTrial) -> bool:
    """Tell whether a trial failed because its process did, and not by its genotype."""
    return trial.state is TrialState.FAIL and "failure" not in trial.user_attrs


class DecisionSampler(BaseSampler):
    """Base of samplers that make all decisions of a genotype at once."""

    def __init__(self, space: SearchSpace, *, seed: int, horizon: Horizon) -> None:
        self.space = space
        self.seed = seed
        self.horizon = horizon
        self._distributions = self.distributions()

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return one Optuna parameter per choice, its value an option's number."""
        return {c.name: IntDistribution(0, c.num_options - 1) for c in self.space.choices}

    @abstractmethod
    def decide(self, past: Sequence[FrozenTrial], number: int) -> Sequence[int]:
        """Return the decisions for the trial of that number.

        Args:
            past: the trials that it may look at, by number; some may be unfinished.
            number: the new trial's.
        """

    def suggest(self, trial: Trial) -> tuple[int, ...]:
        """Make a trial's decisions, or return those that it has already."""
        return tuple(
            trial._suggest(name, distribution) for name, distribution in self._distributions.items()
        )

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        past = self.horizon.past(study.get_trials(deepcopy=False), trial.number)
        decisions = self.decide(past, trial.number)
        return {c.name: d for c, d in zip(self.space.choices, decisions, strict=True)}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> NoReturn:
        raise ValueError(f"{param_name!r} is not a choice of this search space")

    def decisions_of(self, trial: FrozenTrial) -> tuple[int, ...] | None:
        """Return a trial's decisions; None if it ended before they were made."""
        try:
            return tuple(trial.params[choice.name] for choice in self.space.choices)
        except KeyError:
            return None


class RandomSampler(DecisionSampler):
    """Draw every decision uniformly; a trial's depend on the seed and its number only."""

    def decide(self, past: Sequence[FrozenTrial], number: int) -> Sequence[int]:
        return self.space.sample(stream("random", self.seed, number))


class ControllerSampler(DecisionSampler):
    """Propose by the paper's controller.

    Trial n belongs to batch n // batch_size. The controller has learnt the complete batches of
    the past up to the first incomplete one: with one worker all before trial n's, with several
    perhaps a batch fewer. Any process can rebuild it from the study.
    """

    def __init__(
        self, space: SearchSpace, config: ControllerConfig, *, seed: int, horizon: Horizon
    ) -> None:
        super().__init__(space, seed=seed, horizon=horizon)
        self.config = config
        self._controller = Controller(space, config, seed=seed)
        self._study_name: str | None = None

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        if study.study_name != self._study_name:
            self._controller = Controller(self.space, self.config, seed=self.seed)
            self._study_name = study.study_name
        return super().sample_relative(study, trial, search_space)

    def decide(self, past: Sequence[FrozenTrial], number: int) -> Sequence[int]:
        size = self.config.batch_size
        learnt = self._controller.num_batches * size
        if learnt > len(past):  # an earlier trial is run again; it must see what it saw
            self._controller = Controller(self.space, self.config, seed=self.seed)
        while True:
            start = self._controller.num_batches * size
            batch = past[start : start + size]
            if len(batch) < size or not all(trial.state.is_finished() for trial in batch):
                return self._controller.propose(number)
            self._controller.learn(p for t in batch if (p := self._proposal(t)) is not None)

    def _proposal(self, trial: FrozenTrial) -> Proposal | None:
        decisions = self.decisions_of(trial)
        if decisions is None or was_lost(trial):
            return None  # ended from outside: teaches nothing
        if trial.state is TrialState.PRUNED and trial.value is None:
            return None  # stopped before it was trained
        return Proposal(decisions, FAILED_REWARD if trial.value is None else trial.value)


class EvolutionSampler(DecisionSampler):
    """Regularized evolution; see ``search.strategies.evolution``.

    The population is the youngest rewarded trials, by number.
    """

    def __init__(
        self, space: SearchSpace, config: EvolutionConfig, *, seed: int, horizon: Horizon
    ) -> None:
        super().__init__(space, seed=seed, horizon=horizon)
        self.config = config

    def decide(self, past: Sequence[FrozenTrial], number: int) -> Sequence[int]:
        generator = stream("evolution", self.seed, number)
        population: list[tuple[tuple[int, ...], Sequence[float]]] = []
        for trial in reversed(past):
            decisions = self.decisions_of(trial)
            if trial.values is not None and decisions is not None:
                population.append((decisions, trial.values))
                if len(population) == self.config.population_size:
                    break
        else:
            return self.space.sample(generator)
        parent = choose_parent(population, self.config.sample_size, generator)
        return mutate(parent, self.space, self.config.identity_probability, generator)


class OptunaSampler(DecisionSampler):
    """One of Optuna's own samplers, made anew for each trial, with a seed of the trial's own.

    So a proposal depends on nothing that a killed process would take with it.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: TpeConfig | NsgaConfig,
        *,
        seed: int,
        horizon: Horizon,
    ) -> None:
        super().__init__(space, seed=seed, horizon=horizon)
        self.config = config

    def distributions(self) -> dict[str, BaseDistribution]:
        # Options have no order, which Optuna's samplers would else make use of.
        return {
            c.name: CategoricalDistribution(tuple(range(c.num_options))) for c in self.space.choices
        }

    def decide(self, past: Sequence[FrozenTrial], number: int) -> NoReturn:
        raise NotImplementedError("Optuna's samplers look at the study themselves")

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        seed = stream("optuna", self.seed, trial.number).initial_seed() % 2**32
        match self.config:
            case TpeConfig(num_startup_trials=num_startup):
                inner: BaseSampler = TPESampler(
                    seed=seed, n_startup_trials=num_startup, multivariate=True
                )
            case NsgaConfig(population_size=population_size):
                inner = NSGAIISampler(seed=seed, population_size=population_size)
        view = _PastStudy(study, self.horizon.end(trial.number))
        decided = inner.sample_relative(view, trial, search_space)
        for name, distribution in search_space.items():
            if name not in decided:
                decided[name] = inner.sample_independent(view, trial, name, distribution)
        return decided


class _PastStudy(Study):
    """A study without the trials from a number on."""

    def __init__(self, study: Study, end: int | None) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._end = end

    def _get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        trials = super()._get_trials(*args, **kwargs)
        return trials if self._end is None else [t for t in trials if t.number < self._end]


def build_sampler(
    config: StrategyConfig, space: SearchSpace, *, seed: int, horizon: Horizon = Horizon()
) -> DecisionSampler:
    """Build the sampler of a strategy.

    Raises:
        TypeError: if there is none for a config of that type.
    """
    match config:
        case RandomConfig():
            return RandomSampler(space, seed=seed, horizon=horizon)
        case ControllerConfig():
            return ControllerSampler(space, config, seed=seed, horizon=horizon)
        case EvolutionConfig():
            return EvolutionSampler(space, config, seed=seed, horizon=horizon)
        case TpeConfig() | NsgaConfig():
            return OptunaSampler(space, config, seed=seed, horizon=horizon)
        case _:
            raise TypeError(f"no strategy for {type(config).__name__}")
