"""The trials of a study, as its storage holds them."""

from __future__ import annotations

from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.strategies.base import DecisionSampler, is_orphaned
from search.study.heartbeat import Heartbeat
from search.study.trials import TrialRecord, load_trial


class TrialHistory:
    """Trials of a study, by this process, by earlier ones and by other drivers.

    Read from the storage by ``refresh``, so that a resumed search and a running one see the same.
    """

    def __init__(self, study: Study, heartbeat: Heartbeat) -> None:
        assert isinstance(study.sampler, DecisionSampler)
        self._study, self._heartbeat = study, heartbeat
        self._sampler: DecisionSampler[Any] = study.sampler
        self.by_number: dict[int, TrialRecord] = {}
        """Finished trials, without orphaned ones."""
        self.originals: dict[str, TrialRecord] = {}
        """Digest of an architecture -> the first trial that was trained with it."""
        self.num_orphaned = 0
        """Number of trials that failed because their process died."""
        self.unfinished: list[int] = []
        """Numbers of the trials that were not finished at the last ``refresh``."""
        self._num_read = 0

    @property
    def records(self) -> list[TrialRecord]:
        """Finished trials ordered by number, without orphaned ones."""
        return [self.by_number[number] for number in sorted(self.by_number)]

    @property
    def first_unfinished(self) -> int:
        """Number of the first trial that is not finished, or of the next new trial."""
        return min(self.unfinished, default=self._num_read)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials as the storage holds them now; they must not be changed."""
        return self._study.get_trials(deepcopy=False)

    def refresh(self) -> list[TrialRecord]:
        """Read what finished since the last call, and return it ordered by number."""
        trials = self.trials()
        self._heartbeat.requeue_stale_trials(
            trials[n] for n in self.unfinished if trials[n].state is TrialState.RUNNING
        )
        trials = self.trials()
        unfinished, finished = [], []
        for number in [*self.unfinished, *range(self._num_read, len(trials))]:
            trial = trials[number]
            if not trial.state.is_finished():
                unfinished.append(number)
            elif is_orphaned(trial):
                self.num_orphaned += 1
            else:
                finished.append(self._load(trial))
        self.unfinished, self._num_read = unfinished, len(trials)
        for record in finished:
            self.by_number[record.number] = record
            if record.same_as is None:
                self.originals.setdefault(record.architecture.digest, record)
        return finished

    def _load(self, trial: FrozenTrial) -> TrialRecord:
        decisions = self._sampler.decisions_of(trial)
        assert decisions is not None
        return load_trial(trial, self._sampler.space.to_genotype(decisions).canonical())

    def interrupted(self) -> list[int]:
        """Return this search's trials that were running when it was killed."""
        trials = self.trials()
        return [n for n in self.unfinished if self._heartbeat.owns(trials[n])]

    def has_queued_trial(self) -> bool:
        """Return whether a trial of a dead driver waits to be run again."""
        trials = self.trials()
        return any(trials[n].state is TrialState.WAITING for n in self.unfinished)

    def is_running_elsewhere(self, digest: str, *, before: int) -> bool:
        """Return whether another driver runs an architecture, in a trial with a lower number."""
        if self._heartbeat.is_alone:
            return False
        trials = self.trials()
        return any(
            trials[n].user_attrs.get("digest") == digest and not self._heartbeat.owns(trials[n])
            for n in self.unfinished
            if n < before
        )
