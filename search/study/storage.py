"""Storage of a search: Optuna's journal file, or any storage that Optuna has a URL for.

Optuna's own lock file outlives a killed process, and the next process waits half a minute for it;
a partially written line corrupts everything after it. Both are handled here; the file format stays
Optuna's.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from search.study.config import SearchError

JOURNAL_NAME = "study.journal"


def open_storage(url: str, out_dir: Path) -> BaseStorage:
    """Open a search's storage.

    Args:
        url: database URL, as Optuna takes it; empty for a journal file in ``out_dir``.
        out_dir: the search's folder.

    Raises:
        ValueError: if nothing can be reached at the URL, or the journal is damaged.
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
def exclusive_lock(out_dir: Path) -> Iterator[None]:
    """Keep other processes from running a search in the same folder.

    Raises:
        SearchError: if another process holds the lock.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with (out_dir / ".search.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SearchError(f"another process is searching in {out_dir}") from None
        yield  # the kernel releases the lock with the file, however the process ends


class _KernelLock(JournalFileOpenLock):
    """A file lock that the kernel releases when its holder dies."""

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
    """Optuna's journal file, one line per operation, without a partially written last line.

    Each operation is one write to the kernel, which survives the process, and is flushed to the
    disk when a trial finishes rather than for each of its fifty decisions.
    """

    def __init__(self, path: Path) -> None:
        self._mutex = _KernelLock(path)
        self._journal = path
        super().__init__(str(path), self._mutex)
        self._truncate_partial_line()

    def _truncate_partial_line(self) -> None:
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
