"""Where a search remembers its trials: Optuna's journal file, or any storage that it has a URL for.

Optuna's own lock file outlives a killed process, and the next one waits half a minute for it; a
line that a kill tore would spoil all that follow. Both are mended here; the file stays Optuna's.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

logger = logging.getLogger(__name__)

JOURNAL_NAME = "study.journal"
SILENT_BEATS = 6
"""After so many missing beats a driver is taken to be dead."""


def open_storage(url: str, out_dir: Path) -> BaseStorage:
    """Open a search's storage.

    Args:
        url: of a data base, as Optuna takes it; empty for a journal file in ``out_dir``.
        out_dir: the search's folder.

    Raises:
        ValueError: if nothing can be reached at the URL, or the journal is not one.
    """
    if url:
        try:
            return RDBStorage(url)
        except (SQLAlchemyError, OptunaError, ImportError, ValueError, RuntimeError) as error:
            raise ValueError(f"cannot open storage {url!r}: {error}") from error
    path = out_dir / JOURNAL_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    backend = _Journal(path)
    try:
        return JournalStorage(backend)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not an Optuna journal, or is damaged: {error}") from error


@contextmanager
def sole_driver(out_dir: Path) -> Iterator[None]:
    """Keep other processes from driving a search in the same folder.

    Raises:
        RuntimeError: if one does so already.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with (out_dir / ".search.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another process is searching in {out_dir}") from None
        yield  # the kernel releases the lock with the file, however the process ends


class Presence:
    """Tells which unfinished trials are a search's own, and takes over those of dead searches.

    A journal in the search's folder has one driver at a time (``sole_driver``). A data base may be
    shared by several, each with a folder of its own: each signs its trials and, in a thread, keeps
    changing a beat in the study. When a beat has not changed for ``SILENT_BEATS`` of them, its
    driver's trials are marked as failed and queued again. Nobody compares clocks of two machines.

    Args:
        study: the study.
        out_dir: the search's folder; with the host's name it identifies the driver, also when it
            is started again.
        shared: whether other drivers may use the study.
        heartbeat_seconds: time from beat to beat.
    """

    def __init__(
        self, study: Study, out_dir: Path, *, shared: bool, heartbeat_seconds: float
    ) -> None:
        self._study, self._shared, self._every = study, shared, heartbeat_seconds
        self._key = f"driver:{socket.gethostname()}:{out_dir.resolve()}"
        self.is_alone = True
        """Whether no other driver has ever used the study."""
        self._beats: dict[str, tuple[Any, float]] = {}  # driver -> its beat, seen first when
        self._next_check = 0.0
        self._stop = threading.Event()

    def __enter__(self) -> Presence:
        if self._shared:
            self._study.set_user_attr(self._key, time.time())
            self.is_alone = self._drivers().keys() == {self._key}
            threading.Thread(target=self._keep_beating, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def claim(self, trial: Trial) -> None:
        """Sign a trial, so that others leave it alone."""
        if self._shared:
            trial.set_user_attr("driver", self._key)

    def owns(self, trial: FrozenTrial) -> bool:
        """Tell whether a trial was proposed by this search, in this run or an earlier one."""
        return self.is_alone or trial.user_attrs.get("driver") == self._key

    def take_over(self, running: Iterable[FrozenTrial]) -> None:
        """Mark the trials of drivers that fell silent as failed, and queue them again."""
        now = time.monotonic()
        if not self._shared or now < self._next_check:
            return
        self._next_check = now + self._every
        drivers = self._drivers()
        self.is_alone = self.is_alone and drivers.keys() == {self._key}
        for trial in running:
            driver = trial.user_attrs.get("driver", f"unsigned trial {trial.number}")
            beat, since = self._beats.get(driver, (None, now))
            if beat != drivers.get(driver, "none") or driver == self._key:
                self._beats[driver] = (drivers.get(driver, "none"), now)
            elif now - since > SILENT_BEATS * self._every:
                self._queue_again(trial)

    def _queue_again(self, trial: FrozenTrial) -> None:
        try:
            self._study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            return  # it was finished, or another driver was first
        logger.warning("trial %d is run again: its process fell silent", trial.number)
        self._study.enqueue_trial(trial.params)

    def _drivers(self) -> dict[str, Any]:
        return {k: v for k, v in self._study.user_attrs.items() if k.startswith("driver:")}

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._study.set_user_attr(self._key, time.time())
            except (SQLAlchemyError, OptunaError) as error:
                logger.warning("the storage could not be reached for a moment: %s", error)


class _KernelLock(JournalFileOpenLock):
    """A lock that the kernel releases when its holder dies."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path.with_name(path.name + ".lock")
        self._handle: int | None = None

    def acquire(self) -> bool:
        handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._handle = handle
        return True

    def release(self) -> None:
        assert self._handle is not None
        os.close(self._handle)
        self._handle = None


class _Journal(JournalFileBackend):
    """Optuna's journal file, one line per operation, that forgets a torn last line.

    Lines are handed to the kernel one write at a time, which survives the process, and are forced
    to the disk when a trial is finished and not for each of its fifty decisions.
    """

    def __init__(self, path: Path) -> None:
        self._mutex = _KernelLock(path)
        self._journal = path
        super().__init__(str(path), self._mutex)
        self._forget_torn_line()

    def _forget_torn_line(self) -> None:
        self._mutex.acquire()
        try:
            with self._journal.open("rb+") as file:
                whole = file.read().rfind(b"\n") + 1
                file.truncate(whole)
        finally:
            self._mutex.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._mutex.acquire()
        try:
            with self._journal.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                if file.write(lines.encode()) < len(lines.encode()):
                    file.truncate(end)
                    raise OSError(f"cannot write {self._journal}: the disk is full")
                if any(log.get("datetime_complete") for log in logs):
                    os.fsync(file.fileno())
        finally:
            self._mutex.release()
