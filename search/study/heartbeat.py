"""Ownership of trials in a storage that several searches share."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

logger = logging.getLogger(__name__)

MAX_MISSED_HEARTBEATS = 6
"""A driver that misses more heartbeats than this is considered dead."""


class Heartbeat:
    """Marks a driver's trials as its own, and requeues the trials of drivers that died.

    A journal in the search's folder has one driver at a time (``exclusive_lock``). A database may
    be shared by several drivers, each with a folder of its own: each marks its trials and, in a
    thread, keeps changing a value in the study. When a driver's value has not changed for
    ``MAX_MISSED_HEARTBEATS`` intervals, its trials are marked as failed and queued again. Clocks of
    different machines are never compared. Optuna's own heartbeat works with ``Study.optimize``
    only.

    Args:
        study: the study.
        out_dir: the search's folder, if other drivers may use the study; with the host's name it
            identifies the driver, also after a restart. None if this driver is the only one.
        interval_seconds: time between heartbeats.
    """

    def __init__(
        self, study: Study, out_dir: Path | None = None, *, interval_seconds: float = 10.0
    ) -> None:
        self._study, self._interval = study, interval_seconds
        self._is_shared = out_dir is not None
        self._key = f"driver:{socket.gethostname()}:{out_dir.resolve()}" if out_dir else ""
        self.is_alone = True
        """Whether no other driver has ever used the study."""
        # Driver -> its last heartbeat, and when it was first seen by this process's clock.
        self._heartbeats: dict[str, tuple[Any, float]] = {}
        self._next_check = 0.0
        self._stop = threading.Event()

    def __enter__(self) -> Heartbeat:
        if self._is_shared:
            self._study.set_user_attr(self._key, time.time())
            self.is_alone = self._drivers().keys() == {self._key}
            threading.Thread(target=self._keep_beating, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def claim(self, trial: Trial) -> None:
        """Mark a trial as this driver's."""
        if self._is_shared:
            trial.set_user_attr("driver", self._key)

    def owns(self, trial: FrozenTrial) -> bool:
        """Return whether this search proposed a trial, in this run or an earlier one."""
        return self.is_alone or trial.user_attrs.get("driver") == self._key

    def requeue_stale_trials(self, running: Iterable[FrozenTrial]) -> None:
        """Mark running trials of dead drivers as failed, and queue them again."""
        now = time.monotonic()
        if not self._is_shared or now < self._next_check:
            return
        self._next_check = now + self._interval
        drivers = self._drivers()
        self.is_alone = self.is_alone and drivers.keys() == {self._key}
        for trial in running:
            driver = trial.user_attrs.get("driver", f"unsigned trial {trial.number}")
            last, since = self._heartbeats.get(driver, (None, now))
            if last != drivers.get(driver, "none") or driver == self._key:
                self._heartbeats[driver] = (drivers.get(driver, "none"), now)
            elif now - since > MAX_MISSED_HEARTBEATS * self._interval:
                self._requeue(trial)

    def _requeue(self, trial: FrozenTrial) -> None:
        try:
            self._study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            return  # it finished, or another driver requeued it first
        logger.warning("trial %d is run again: its driver sends no heartbeat", trial.number)
        self._study.enqueue_trial(trial.params)

    def _drivers(self) -> dict[str, Any]:
        return {k: v for k, v in self._study.user_attrs.items() if k.startswith("driver:")}

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self._study.set_user_attr(self._key, time.time())
            except (SQLAlchemyError, OptunaError) as error:
                logger.warning("cannot write the heartbeat to the storage: %s", error)
