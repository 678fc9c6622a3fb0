"""Finished trials, and how a study stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from backbone.cells.architecture import Architecture
from search.execution.worker import Outcome
from search.rewards.cost import constrained_reward

if TYPE_CHECKING:
    from search.rewards.config import CostConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord(Outcome):
    """One finished trial: an architecture and the outcome of its task."""

    architecture: Architecture
    same_as: int | None = None
    """Number of the earlier trial of an equal architecture whose outcome was taken."""

    @classmethod
    def from_outcome(cls, outcome: Outcome, architecture: Architecture) -> TrialRecord:
        """Return the record of an architecture that was rewarded."""
        return cls(
            architecture=architecture, **{f.name: getattr(outcome, f.name) for f in fields(Outcome)}
        )

    @property
    def is_complete(self) -> bool:
        """Whether it has the reward of a whole training."""
        return self.reward is not None and not self.pruned

    @property
    def complete_reward(self) -> float:
        """The reward of a complete trial."""
        assert self.reward is not None
        return self.reward


class Objective:
    """The values that a study optimizes: the reward, constrained by the cost, or both."""

    def __init__(self, cost: CostConfig) -> None:
        self._cost = cost

    @property
    def directions(self) -> list[StudyDirection]:
        """Optuna's directions of optimization."""
        reward, cost = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        return [reward, cost] if self._cost.front else [reward]

    def values(self, record: TrialRecord) -> list[float]:
        """Return the values of a complete trial, one per direction."""
        if not self._cost.front:
            return [self.scalar(record)]
        assert record.cost is not None
        return [record.complete_reward, record.cost]

    def scalar(self, record: TrialRecord, reward: float | None = None) -> float:
        """Return the value that a search for one number maximizes.

        Args:
            record: the trial, for its cost.
            reward: taken instead of the trial's own.
        """
        reward = record.complete_reward if reward is None else reward
        if record.cost is None or not self._cost.target:
            return reward
        return constrained_reward(reward, record.cost, self._cost)


def store_trial(study: Study, trial: Trial, record: TrialRecord, objective: Objective) -> None:
    """Write a finished trial to the study, from which ``load_trial`` reads it again."""
    attributes: Mapping[str, object] = {
        "seconds": record.seconds,
        "same_as": record.same_as,
        "cost": record.cost,
        "steps": {str(step): value for step, value in record.steps.items()} or None,
        "reward": record.reward,
        "failure": record.failure or None,
    }
    for name, value in attributes.items():
        if value is not None:
            trial.set_user_attr(name, value)
    if len(study.directions) == 1:  # Optuna has no intermediate values with several objectives
        _report_steps(study, trial, record, objective)
    if record.failure:
        study.tell(trial, state=TrialState.FAIL)
    elif record.pruned:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, objective.values(record))


def _report_steps(study: Study, trial: Trial, record: TrialRecord, objective: Objective) -> None:
    """Report a trial's steps to Optuna, which takes the last one as a pruned trial's value."""
    known = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    for step, value in record.steps.items():
        if step > 0 and step not in known:  # a trial that is run again reports again
            trial.report(objective.scalar(record, value), step)


def load_trial(trial: FrozenTrial, architecture: Architecture) -> TrialRecord:
    """Read a finished trial from the study.

    Args:
        trial: as Optuna stores it.
        architecture: the canonical architecture of its decisions.
    """
    attributes = trial.user_attrs
    return TrialRecord(
        number=trial.number,
        architecture=architecture,
        reward=attributes.get("reward"),
        seconds=attributes.get("seconds", 0.0),
        failure=attributes.get("failure", ""),
        same_as=attributes.get("same_as"),
        pruned=trial.state is TrialState.PRUNED,
        cost=attributes.get("cost"),
        steps={int(step): value for step, value in attributes.get("steps", {}).items()},
    )
