"""Executors, which run the trials of a search: one table, read by the builder and by Hydra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from backbone.config import Choice, find_choice
from search.execution.base import Executor, ExecutorConfig
from search.execution.local import LocalConfig
from search.execution.ray import RayConfig
from search.execution.worker import Evaluator

EXECUTORS: Mapping[str, Choice] = {
    "inline": Choice(ExecutorConfig, "search.execution.inline:InlineExecutor"),
    "local": Choice(LocalConfig, "search.execution.local:LocalExecutor"),
    "ray": Choice(RayConfig, "search.execution.ray:RayExecutor"),
}
"""Name of an executor -> its config type and its class."""


@contextmanager
def running_executor(config: ExecutorConfig, evaluator: Evaluator) -> Iterator[Executor]:
    """Start an executor, and stop it at the end.

    Args:
        config: selects and configures the executor.
        evaluator: runs the tasks; sent to the worker processes.

    Raises:
        ImportError: if Ray is selected and not installed.
        TypeError: if no row of ``EXECUTORS`` has that config type.
        ValueError: if the requested GPUs, CPUs or cluster are not available.
    """
    executor: Executor = find_choice(EXECUTORS, config).load()(evaluator, config)
    try:
        yield executor
    finally:
        executor.close()
