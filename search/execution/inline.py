"""Trials in the process of the search itself, one at a time."""

from __future__ import annotations

from collections import deque

from search.execution.base import ExecutorConfig
from search.execution.worker import Evaluator, Outcome, Task


class InlineExecutor:
    """Runs one task at a time, in this process."""

    num_slots = 1

    def __init__(self, evaluator: Evaluator, config: ExecutorConfig | None = None) -> None:
        self._evaluator = evaluator
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def wait(self) -> list[Outcome]:
        return [self._evaluator(self._tasks.popleft())]

    def close(self) -> None:
        self._tasks.clear()
