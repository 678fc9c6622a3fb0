"""Optuna's own samplers as search strategies: TPE and NSGA-II."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.randomness import stream
from search.strategies.base import ConfigT, DecisionSampler
from search.strategies.config import NsgaConfig, TpeConfig


class OptunaSampler(DecisionSampler[ConfigT]):
    """One of Optuna's own samplers, built anew for each trial with a seed of that trial.

    A proposal therefore depends on no state that is lost when the process is killed.
    """

    @abstractmethod
    def build_inner(self, seed: int) -> BaseSampler:
        """Build Optuna's sampler for one trial."""

    def distributions(self) -> dict[str, BaseDistribution]:
        # Categorical: the order of options carries no information.
        return {
            c.name: CategoricalDistribution(tuple(range(c.num_options))) for c in self.space.choices
        }

    def decide(self, past: Sequence[FrozenTrial], number: int) -> NoReturn:
        raise NotImplementedError("Optuna's samplers read the study themselves")

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        seed = stream("optuna", self.seed, trial.number).initial_seed() % 2**32
        inner = self.build_inner(seed)
        past_study = _PastStudy(study, self.history.end(trial.number))
        decisions = inner.sample_relative(past_study, trial, search_space)
        for name, distribution in search_space.items():
            if name not in decisions:
                decisions[name] = inner.sample_independent(past_study, trial, name, distribution)
        return decisions


class TpeSampler(OptunaSampler[TpeConfig]):
    """Propose genotypes by Optuna's multivariate TPE."""

    def build_inner(self, seed: int) -> BaseSampler:
        return TPESampler(
            seed=seed, n_startup_trials=self.config.num_startup_trials, multivariate=True
        )


class NsgaSampler(OptunaSampler[NsgaConfig]):
    """Propose genotypes by Optuna's NSGA-II."""

    def build_inner(self, seed: int) -> BaseSampler:
        return NSGAIISampler(seed=seed, population_size=self.config.population_size)


class _PastStudy(Study):
    """A view of a study without the trials from number ``end`` on."""

    def __init__(self, study: Study, end: int | None) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._end = end

    def _get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        trials = super()._get_trials(*args, **kwargs)
        return trials if self._end is None else [t for t in trials if t.number < self._end]
