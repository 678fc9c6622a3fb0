"""Simulate a search to measure scheduler throughput and worker utilization.

A discrete-event simulation of the workers around the driver, sampler and storage of a search.
Virtual time advances by the time that the driver takes between two events, and jumps to the next
event while the driver waits.
"""

from __future__ import annotations

import heapq
import math
import resource
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from backbone.cells.architecture import Architecture
from search.analysis.config import SimulationConfig
from search.execution.worker import Outcome, Task
from search.randomness import stream
from search.rewards.base import ReportStep
from search.space import build_space
from search.study.config import SearchConfig
from search.study.driver import TrialDriver
from search.study.storage import JOURNAL_NAME, exclusive_lock
from search.study.study import describe_study, open_study

REASON = "the loss became nan (simulated)"


@dataclass(frozen=True)
class SimulatedReward:
    """A random number, 0 to 1, that depends on architecture and seed; nothing is trained."""

    arguments: Mapping[str, Any] = field(default_factory=lambda: {"reward": "pretended"})
    data: Mapping[str, str] = field(default_factory=dict)
    test_reward: None = None

    def __call__(self, architecture: Architecture, *, seed: int, report: ReportStep) -> float:
        return float(torch.rand((), generator=stream("pretended", architecture.digest, seed)))


@dataclass(slots=True)
class _Span:
    """A running task, with its end in virtual time."""

    task: Task
    start: float
    end: float
    attempt: int
    is_lost: bool


class SimulatedExecutor:
    """Executor whose trainings take random times; some fail, some lose their worker."""

    def __init__(self, config: SimulationConfig, *, seed: int) -> None:
        self.num_slots = config.num_workers
        self.busy_seconds = 0.0
        """Virtual time of all workers in trainings, including lost ones."""
        self.last_submission = 0.0
        """Virtual time at which the last task was submitted."""
        self.num_lost = 0
        self._config, self._seed = config, seed
        self._reward = SimulatedReward()
        self._running: list[tuple[float, int, _Span]] = []
        self._idle_seconds = 0.0  # of waits that ended with a task
        self._free_since = deque([0.0] * config.num_workers)
        self._count = 0
        self._offset, self._reference = 0.0, time.perf_counter()

    def now(self) -> float:
        """Return the virtual time in seconds."""
        return self._offset + time.perf_counter() - self._reference

    @property
    def idle_seconds(self) -> float:
        """Virtual time that all workers waited for work, up to the last submitted task."""
        still_free = (max(self.last_submission - since, 0.0) for since in self._free_since)
        return self._idle_seconds + sum(still_free)

    def submit(self, task: Task) -> None:
        now = self.now()
        self._idle_seconds += now - self._free_since.popleft()
        self.last_submission = now
        self._run(task, now, attempt=0)

    def _run(self, task: Task, start: float, *, attempt: int) -> None:
        config, random = self._config, stream("duration", self._seed, task.number, attempt)
        normal = float(torch.randn((), generator=random))
        # The mean of exp(sigma * normal) is exp(sigma ** 2 / 2).
        scale = math.exp(config.spread * normal - config.spread**2 / 2)
        u, v, w = torch.rand(3, generator=random).tolist()
        slow = config.straggler_factor if u < config.straggler_fraction else 1.0
        seconds = config.mean_seconds * scale * slow
        is_lost = v < config.lost_fraction
        end = start + (seconds * w if is_lost else seconds)
        self._count += 1
        span = _Span(task, start, end, attempt, is_lost)
        heapq.heappush(self._running, (end, self._count, span))

    def wait(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while not outcomes:
            ahead = self._running[0][0] - self.now()
            if ahead > 0:  # jump to the next event
                self._offset += ahead
            while self._running and self._running[0][0] <= self.now():
                span = heapq.heappop(self._running)[2]
                self.busy_seconds += span.end - span.start
                if span.is_lost:
                    self.num_lost += 1
                    self._run(span.task, span.end, attempt=span.attempt + 1)
                else:
                    self._free_since.append(span.end)
                    outcomes.append(self._outcome(span))
        return outcomes

    def _outcome(self, span: _Span) -> Outcome:
        task, seconds = span.task, span.end - span.start
        random = stream("failure", self._seed, task.number)
        if float(torch.rand((), generator=random)) < self._config.failed_fraction:
            return Outcome(number=task.number, failure=REASON, seconds=seconds)
        reward = self._reward(task.architecture, seed=task.seed, report=lambda *_: None)
        return Outcome(number=task.number, reward=reward, seconds=seconds)

    def close(self) -> None:
        self._running.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """Throughput and utilization of a simulated search."""

    num_trials: int
    num_failed: int
    num_lost: int
    """Trainings whose worker was lost, which were repeated."""
    virtual_hours: float
    """From the first proposal to the last outcome."""
    busy_percent: float
    """Percentage of the workers' time spent in trainings, up to the last outcome."""
    busy_percent_before_tail: float
    """The same up to the last proposal, after which workers run out of work."""
    tail_hours: float
    """Virtual time from the last proposal to the last outcome."""
    driver_seconds_per_trial: float
    """Real time of the driver per trial."""
    peak_gib: float
    """Peak memory of the process."""


def simulate_search(
    config: SearchConfig, simulation: SimulationConfig, out_dir: Path
) -> SimulationResult:
    """Run a whole search on simulated workers.

    Args:
        config: the search; its executor is ignored.
        simulation: the simulated workers.
        out_dir: folder for the journal.

    Raises:
        ValueError: if the folder holds a journal; a simulation cannot be resumed.
    """
    if (out_dir / JOURNAL_NAME).exists():
        raise ValueError(
            f"{out_dir / JOURNAL_NAME} exists already; give a folder without a journal"
        )
    start = time.perf_counter()
    space = build_space(config.space)
    provenance = describe_study(config, reward=SimulatedReward())
    with exclusive_lock(out_dir):
        study = open_study(config, space, provenance, out_dir)
        executor = SimulatedExecutor(simulation, seed=config.seed)
        driver = TrialDriver(study, config, executor)
        driver.run()
        end = executor.now()
    return SimulationResult(
        num_trials=len(driver.records),
        num_failed=sum(bool(record.failure) for record in driver.records),
        num_lost=executor.num_lost,
        virtual_hours=end / 3600,
        busy_percent=100 * executor.busy_seconds / (executor.num_slots * end),
        busy_percent_before_tail=100
        * (1 - executor.idle_seconds / (executor.num_slots * executor.last_submission)),
        tail_hours=(end - executor.last_submission) / 3600,
        driver_seconds_per_trial=(time.perf_counter() - start) / config.num_trials,
        peak_gib=_peak_bytes() / 2**30,
    )


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # elsewhere in KiB
