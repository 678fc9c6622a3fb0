"""Base of the search strategies: Optuna samplers whose proposals depend on seed and history only.

A proposal is a function of the seed, the trial's number and the trials in its ``HistoryWindow``:
all that are finished, or, for a search that several workers must reproduce, a fixed part of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.space import SearchSpace
from search.strategies.config import StrategyConfig

ConfigT = TypeVar("ConfigT", bound=StrategyConfig)


@dataclass(frozen=True, slots=True)
class HistoryWindow:
    """The earlier trials that a proposal may depend on."""

    lag: int | None = None
    """None: all finished trials. Otherwise trial n depends on the trials before n - ``lag``, which
    must be finished when it is proposed."""

    def end(self, number: int) -> int | None:
        """Return the number of the first trial outside trial ``number``'s window, if any."""
        return None if self.lag is None else max(number - self.lag, 0)

    def past(self, trials: Sequence[FrozenTrial], number: int) -> Sequence[FrozenTrial]:
        """Return the trials in trial ``number``'s window, unfinished ones included."""
        return trials[: self.end(number)]

    def may_propose(self, number: int, first_unfinished: int) -> bool:
        """Return whether all trials in trial ``number``'s window are finished."""
        end = self.end(number)
        return end is None or first_unfinished >= end


ALL_FINISHED = HistoryWindow()


def is_orphaned(trial: FrozenTrial) -> bool:
    """Return whether a trial failed because its process died, not because of its genotype."""
    return trial.state is TrialState.FAIL and "failure" not in trial.user_attrs


class DecisionSampler(BaseSampler, Generic[ConfigT]):
    """Base of the samplers, which make all decisions of a genotype at once.

    A strategy implements ``decide``; the rest is Optuna's interface.
    """

    def __init__(
        self, space: SearchSpace, config: ConfigT, *, seed: int, history: HistoryWindow
    ) -> None:
        self.space = space
        self.config = config
        self.seed = seed
        self.history = history
        self._distributions = self.distributions()

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return one Optuna parameter per choice of the space; its value is an option's index."""
        return {c.name: IntDistribution(0, c.num_options - 1) for c in self.space.choices}

    @abstractmethod
    def decide(self, past: Sequence[FrozenTrial], number: int) -> Sequence[int]:
        """Return the decisions of a new trial, one option index per choice of the space.

        Args:
            past: the trials in its history window, ordered by number; some may be unfinished.
            number: the number of the new trial.
        """

    def suggest(self, trial: Trial) -> tuple[int, ...]:
        """Make a trial's decisions, or return those it already has."""
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
        past = self.history.past(study.get_trials(deepcopy=False), trial.number)
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
        """Return a trial's decisions, or None if it ended before they were made."""
        try:
            return tuple(trial.params[choice.name] for choice in self.space.choices)
        except KeyError:
            return None
