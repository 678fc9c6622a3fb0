"""Append-only log of measured rewards, from which interrupted analyses are resumed."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from backbone.cells.genotype import Genotype
from backbone.io.provenance import Provenance
from search.execution.worker import FAILURES
from search.rewards.base import Reward

logger = logging.getLogger(__name__)

LOG_NAME = "measurements.jsonl"
"""Name of the log in an output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedReward:
    """One line of the log: a genotype's reward, or the reason for its absence."""

    key: str
    """Provenance key: equal for the same reward, data, seed and genotype."""
    name: str
    """Name of the reward in the analysis that measured it."""
    genotype: str
    """Digest of the genotype."""
    seed: int
    value: float | None
    """The reward, at least 0; None if it failed."""
    seconds: float
    """Duration of the measurement."""
    failure: str = ""
    """Reason for a missing reward."""


class RewardLog:
    """A JSON lines file to which every reward is appended when it is measured.

    Rewards are looked up by their provenance key, so that one file may hold those of several
    settings.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._rewards = {reward.key: reward for reward in _read(file, path)}

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[RewardLog]:
        """Open a log, or create it; an incomplete last line is cut off.

        Raises:
            BlockingIOError: if another process has it open.
            ValueError: if another line than the last is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"another process is measuring into {path}"
                raise BlockingIOError(errno.EAGAIN, message) from None
            yield cls(file, path)  # the kernel releases the lock, however the process ends

    def measure(self, name: str, reward: Reward, genotype: Genotype, *, seed: int) -> LoggedReward:
        """Return a genotype's reward, measured now unless it is in the log.

        A failure (see ``Reward``) is logged and not tried again; other exceptions propagate.
        """
        logged = self.find(reward, genotype, seed=seed)
        if logged is not None:
            return logged
        start = time.perf_counter()
        value, failure = _evaluate(reward, genotype, seed)
        seconds = time.perf_counter() - start
        return self.record(
            name, reward, genotype, seed=seed, value=value, seconds=seconds, failure=failure
        )

    def find(self, reward: Reward, genotype: Genotype, *, seed: int) -> LoggedReward | None:
        """Return a genotype's reward if it is in the log."""
        return self._rewards.get(_key(reward, genotype, seed))

    def record(
        self,
        name: str,
        reward: Reward,
        genotype: Genotype,
        *,
        seed: int,
        value: float | None,
        seconds: float,
        failure: str = "",
    ) -> LoggedReward:
        """Append a reward that was measured elsewhere; arguments as in ``LoggedReward``."""
        if failure:
            logger.warning("%s failed on genotype %s: %s", name, genotype.digest, failure)
        logged = LoggedReward(
            key=_key(reward, genotype, seed),
            name=name,
            genotype=genotype.digest,
            seed=seed,
            value=value,
            seconds=seconds,
            failure=failure,
        )
        self._append(logged)
        return logged

    def _append(self, reward: LoggedReward) -> None:
        line = json.dumps(asdict(reward), allow_nan=False).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        if self._file.write(line) < len(line):
            self._file.truncate(end)
            raise OSError(errno.ENOSPC, f"cannot write {self._file.name}: the disk is full")
        os.fsync(self._file.fileno())
        self._rewards[reward.key] = reward


def _key(reward: Reward, genotype: Genotype, seed: int) -> str:
    arguments = {"reward": reward.arguments, "seed": seed, "genotype": genotype.digest}
    return Provenance(stage="measurement", arguments=arguments, data=reward.data).key


def _read(file: BinaryIO, path: Path) -> Iterator[LoggedReward]:
    file.seek(0)
    text = file.read()
    complete = text.rfind(b"\n") + 1
    file.truncate(complete)
    for number, line in enumerate(text[:complete].splitlines(), start=1):
        try:
            yield LoggedReward(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}, is not a logged reward ({error}); delete the line to "
                "continue"
            ) from None


def _evaluate(reward: Reward, genotype: Genotype, seed: int) -> tuple[float | None, str]:
    """Return the reward and "", or None and the reason for the failure."""
    try:
        value = float(reward(genotype, seed=seed, report=lambda _step, _value: None))
    except FAILURES as error:
        return None, f"{type(error).__name__}: {error}"
    if not 0 <= value < float("inf"):
        return None, f"the reward is {value}; it must be a number of at least 0"
    return value, ""
