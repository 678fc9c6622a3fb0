"""The interface of all executors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from backbone.presets import Preset
from search.execution.worker import Outcome, Task

MAX_ATTEMPTS = 3
"""A task whose worker dies this many times is recorded as failed, as when memory runs out."""


@dataclass(kw_only=True, slots=True)
class ExecutorConfig(Preset):
    """Base of all executor configs; the base itself runs trials in the process of the search."""

    preset_group: ClassVar[str] = "search/executor"
    preset_table: ClassVar[str] = "search.execution:EXECUTORS"


class Executor(Protocol):
    """Runs tasks, several at a time. A task whose worker is lost is run again."""

    @property
    def num_slots(self) -> int:
        """Number of tasks that run at the same time."""

    def submit(self, task: Task) -> None:
        """Start a task; at most ``num_slots`` may be running."""

    def wait(self) -> list[Outcome]:
        """Wait until at least one task is finished, and return the outcomes of all that are.

        Raises:
            Exception: a bug in the reward, as raised in the worker.
        """

    def close(self) -> None:
        """Stop the workers, including those that are running a task."""


def run_tasks(executor: Executor, tasks: Iterable[Task]) -> Iterator[Outcome]:
    """Run tasks on all slots of an executor, and yield each outcome as it arrives.

    Tasks are taken from the iterable only when a slot is free.
    """
    waiting, num_running = iter(tasks), 0
    while True:
        for task in itertools.islice(waiting, executor.num_slots - num_running):
            executor.submit(task)
            num_running += 1
        if not num_running:
            return
        outcomes = executor.wait()
        num_running -= len(outcomes)
        yield from outcomes
