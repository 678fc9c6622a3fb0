"""Rewards that have been measured, in a file that outlives the process that measures."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One genotype's reward, or why there is none."""

    key: str
    """Equal for measurements of the same reward, on the same data, from the same seed, of equal
    genotypes."""
    name: str
    """What the reward was called."""
    genotype: str
    """The genotype's digest."""
    seed: int
    value: float | None
    """None if there is no reward."""
    seconds: float
    """Spent on the reward."""
    failure: str = ""
    """Why there is no reward."""


class MeasurementLog:
    """A JSON lines file to which every measurement is added as it is made.

    A measurement is found again by what it was made from. So a file may hold those of other
    settings: they are neither used nor lost.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._known = {found.key: found for found in _read(file, path)}

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[MeasurementLog]:
        """Open or begin a log; a last line that a kill tore is cut off.

        Raises:
            BlockingIOError: if another process has it open.
            ValueError: if a line before the last is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"another process is measuring into {path}"
                raise BlockingIOError(errno.EAGAIN, message) from None
            yield cls(file, path)  # the kernel releases the lock, however the process ends

    def measure(self, name: str, reward: Reward, genotype: Genotype, *, seed: int) -> Measurement:
        """Return a genotype's reward, measured now unless it is known.

        A failure (see ``Reward``) is a measurement too, and is not tried again; another exception
        passes.
        """
        known = self.find(reward, genotype, seed=seed)
        if known is not None:
            return known
        start = time.perf_counter()
        value, failure = _reward(reward, genotype, seed)
        seconds = time.perf_counter() - start
        return self.record(
            name, reward, genotype, seed=seed, value=value, seconds=seconds, failure=failure
        )

    def find(self, reward: Reward, genotype: Genotype, *, seed: int) -> Measurement | None:
        """Return what is known of a genotype's reward."""
        return self._known.get(_key(reward, genotype, seed))

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
    ) -> Measurement:
        """Add a measurement that was made elsewhere; see its fields."""
        if failure:
            logger.warning("%s failed on genotype %s: %s", name, genotype.digest, failure)
        measurement = Measurement(
            key=_key(reward, genotype, seed),
            name=name,
            genotype=genotype.digest,
            seed=seed,
            value=value,
            seconds=seconds,
            failure=failure,
        )
        self._add(measurement)
        return measurement

    def _add(self, measurement: Measurement) -> None:
        line = json.dumps(asdict(measurement), allow_nan=False).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        if self._file.write(line) < len(line):
            self._file.truncate(end)
            raise OSError(errno.ENOSPC, f"cannot write {self._file.name}: the disk is full")
        os.fsync(self._file.fileno())
        self._known[measurement.key] = measurement


def _key(reward: Reward, genotype: Genotype, seed: int) -> str:
    arguments = {"reward": reward.arguments, "seed": seed, "genotype": genotype.digest}
    return Provenance(stage="measurement", arguments=arguments, data=reward.data).key


def _read(file: BinaryIO, path: Path) -> Iterator[Measurement]:
    file.seek(0)
    text = file.read()
    whole = text.rfind(b"\n") + 1
    file.truncate(whole)
    for number, line in enumerate(text[:whole].splitlines(), start=1):
        try:
            yield Measurement(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}, is no measurement ({error}); delete the line to go on"
            ) from None


def _reward(reward: Reward, genotype: Genotype, seed: int) -> tuple[float | None, str]:
    """Return the reward and "", or None and why there is none."""
    try:
        value = float(reward(genotype, seed=seed, report=lambda _step, _value: None))
    except FAILURES as error:
        return None, f"{type(error).__name__}: {error}"
    if not 0 <= value < float("inf"):
        return None, f"the reward is {value}; it must be a number of at least 0"
    return value, ""
