"""The driver of a search: proposes trials, hands them to workers, and stores their outcomes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from optuna.study import Study
from optuna.trial import Trial

from backbone.cells.architecture import Architecture
from backbone.io.progress import progress_bar
from search.execution.base import Executor
from search.execution.worker import Task
from search.strategies.base import DecisionSampler
from search.study.config import SearchConfig
from search.study.heartbeat import Heartbeat
from search.study.history import TrialHistory
from search.study.pruning import stopping_thresholds
from search.study.trials import Objective, TrialRecord, store_trial

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Time between looks at the storage while all remaining trials run in other drivers."""


class TrialDriver:
    """Runs the trials of one study on an executor.

    Every outcome is written to the study and read back by ``history``, whichever process it comes
    from, so that an interrupted search resumes with the state that it had.

    Args:
        study: the study, with a ``DecisionSampler``.
        config: the search; its executor and its storage are not used.
        executor: runs the trials.
        heartbeat: marks the trials in a study that other drivers share.
        on_trial: called after each trial that this driver finishes.
    """

    def __init__(
        self,
        study: Study,
        config: SearchConfig,
        executor: Executor,
        heartbeat: Heartbeat | None = None,
        on_trial: Callable[[TrialRecord], None] | None = None,
    ) -> None:
        assert isinstance(study.sampler, DecisionSampler)
        self.study, self.config, self.executor = study, config, executor
        self.objective = Objective(config.cost)
        self._sampler: DecisionSampler[Any] = study.sampler
        self._heartbeat = heartbeat or Heartbeat(study)
        self.history = TrialHistory(study, self._heartbeat)
        self._on_trial = on_trial
        self._started: set[int] = set()  # numbers of this run's trials
        self._running: dict[int, tuple[Trial, Architecture]] = {}  # on the executor, by number
        self._running_digests: set[str] = set()
        self._duplicates: dict[str, list[tuple[Trial, Architecture]]] = {}  # wait for an equal one

    @property
    def records(self) -> list[TrialRecord]:
        """Finished trials ordered by number, without those whose process died."""
        return self.history.records

    def run(self) -> None:
        """Bring the study to ``config.num_trials`` finished trials."""
        with _Progress(self.config) as progress:
            self._refresh(progress)
            self._resume_interrupted(progress)
            while True:
                self._fill_slots(progress)
                if self._running:
                    self._collect()
                elif len(self.history.by_number) >= self.config.num_trials:
                    return
                else:  # the remaining trials run in other drivers
                    time.sleep(POLL_SECONDS)
                self._refresh(progress)

    def _resume_interrupted(self, progress: _Progress) -> None:
        """Run the trials again that were running when this search was killed.

        They keep their number and the decisions already made.
        """
        for number in self.history.interrupted():
            while len(self._running) >= self.executor.num_slots:
                self._collect()
                self._refresh(progress)
            self._start(Trial(self.study, self.history.trials()[number]._trial_id))
            self._refresh(progress)

    def _fill_slots(self, progress: _Progress) -> None:
        """Propose trials while there is a free slot and their history window is finished."""
        history = self.history
        while len(self._running) < self.executor.num_slots:
            number = len(history.trials())
            is_enough = number - history.num_orphaned >= self.config.num_trials
            if is_enough and not history.has_queued_trial():
                return
            if not self._sampler.history.may_propose(number, history.first_unfinished):
                return
            self._start(self.study.ask())
            self._refresh(progress)

    def _start(self, trial: Trial) -> None:
        """Submit a trial, or let it wait for the outcome of an equal architecture."""
        self._heartbeat.claim(trial)
        self._started.add(trial.number)
        architecture = self._sampler.space.to_genotype(self._sampler.suggest(trial)).canonical()
        digest = architecture.digest
        trial.set_user_attr("digest", digest)
        if (
            digest in self.history.originals
            or digest in self._running_digests
            or self.history.is_running_elsewhere(digest, before=trial.number)
        ):
            self._duplicates.setdefault(digest, []).append((trial, architecture))
            return
        self._running[trial.number] = (trial, architecture)
        self._running_digests.add(digest)
        self.executor.submit(
            Task(
                number=trial.number,
                architecture=architecture,
                seed=self.config.seed,
                thresholds=self._thresholds(trial.number),
            )
        )

    def _thresholds(self, number: int) -> dict[int, float]:
        end = self._sampler.history.end(number)
        past = (r for r in self.history.by_number.values() if end is None or r.number < end)
        return stopping_thresholds(past, self.config.pruning)

    def _collect(self) -> None:
        """Wait for the executor, and store the outcomes."""
        for outcome in self.executor.wait():
            trial, architecture = self._running.pop(outcome.number)
            self._running_digests.remove(architecture.digest)
            self._store(trial, TrialRecord.from_outcome(outcome, architecture))

    def _store(self, trial: Trial, record: TrialRecord) -> None:
        store_trial(self.study, trial, record, self.objective)

    def _refresh(self, progress: _Progress) -> None:
        """Read finished trials from the study until no more duplicates can be finished."""
        while True:
            for record in self.history.refresh():
                progress.add(record)
                if record.failure:
                    logger.warning("trial %d failed: %s", record.number, record.failure)
                if record.number in self._started and self._on_trial is not None:
                    self._on_trial(record)
            if not self._finish_duplicates():
                return

    def _finish_duplicates(self) -> bool:
        """Store the waiting trials whose architecture has an outcome now; return whether any."""
        ready = [digest for digest in self._duplicates if digest in self.history.originals]
        for digest in ready:
            original = self.history.originals[digest]
            for trial, architecture in self._duplicates.pop(digest):
                record = TrialRecord(
                    number=trial.number,
                    architecture=architecture,
                    same_as=original.number,
                    reward=original.reward,
                    failure=original.failure,
                    pruned=original.pruned,
                    cost=original.cost,
                )
                self._store(trial, record)
        return bool(ready)


class _Progress:
    """A progress bar with the best reward so far."""

    def __init__(self, config: SearchConfig) -> None:
        self._bar = progress_bar(
            total=config.num_trials, desc="search", unit="trial", shown=config.progress
        )
        self._best: float | None = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, record: TrialRecord) -> None:
        """Count a finished trial."""
        if record.is_complete:
            self._best = max(record.complete_reward, self._best or 0.0)
        if self._best is not None:
            self._bar.set_postfix_str(f"best reward {self._best:.4f}", refresh=False)
        self._bar.update()
