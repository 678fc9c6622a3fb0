"""Trials on a Ray cluster; the only module that imports Ray."""

from __future__ import annotations

import logging
import os
from typing import Any

from search.config import RayConfig
from search.execution.worker import Evaluator, Outcome, Task

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads it when it is imported

try:
    import ray
    from ray.exceptions import RayActorError
except ImportError as missing:
    raise ImportError(
        "executor=ray needs Ray; install it by: python -m pip install -e '.[ray]'"
    ) from missing

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""A task whose worker is lost so often is taken to be the cause."""


class _Worker:
    """An actor: keeps the reward's data between tasks."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def run(self, task: Task) -> Outcome:
        return self._evaluator(task)


class RayExecutor:
    """Does tasks in Ray actors, each with its share of CPUs and (fractions of) GPUs.

    Uses the cluster that this process is connected to; or connects to the one at
    ``config.address``; or starts one on this machine, which ends with the executor.

    Raises:
        ConnectionError: if no cluster answers at the address.
        ValueError: if the cluster has not the resources for the workers.
    """

    def __init__(self, evaluator: Evaluator, config: RayConfig) -> None:
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            ray.init(
                address=config.address or None, log_to_driver=False, logging_level=logging.ERROR
            )
        try:
            self.num_slots = _num_workers(config)
        except ValueError:
            self.close()
            raise
        self._actor = ray.remote(_Worker).options(
            num_cpus=config.cpus_per_worker, num_gpus=config.gpus_per_worker
        )
        self._evaluator = ray.put(evaluator)
        self._idle = [self._actor.remote(self._evaluator) for _ in range(self.num_slots)]
        self._running: dict[Any, tuple[Any, Task, int]] = {}  # answer -> actor, task, attempt

    def submit(self, task: Task) -> None:
        self._run(self._idle.pop(), task, 1)

    def _run(self, actor: Any, task: Task, attempt: int) -> None:
        self._running[actor.run.remote(task)] = (actor, task, attempt)

    def wait(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while not outcomes:
            done, _ = ray.wait(list(self._running), num_returns=1)
            for answer in done:
                outcome = self._collect(answer)
                if outcome is not None:
                    outcomes.append(outcome)
        return outcomes

    def _collect(self, answer: Any) -> Outcome | None:
        """Return what came of a task, or None if it was started again."""
        actor, task, attempt = self._running.pop(answer)
        try:
            outcome: Outcome = ray.get(answer)
        except RayActorError as error:
            actor = self._actor.remote(self._evaluator)
            if attempt < MAX_ATTEMPTS:
                logger.warning("trial %d is run again: its Ray worker was lost", task.number)
                self._run(actor, task, attempt + 1)
                return None
            reason = str(error).splitlines()[0]
            failure = f"its Ray worker was lost {attempt} times: {reason}"
            outcome = Outcome(number=task.number, failure=failure)
        self._idle.append(actor)
        return outcome

    def close(self) -> None:
        for actor in [*getattr(self, "_idle", []), *(a for a, _, _ in self._busy())]:
            ray.kill(actor)
        if self._connected_here:
            ray.shutdown()

    def _busy(self) -> list[tuple[Any, Task, int]]:
        return list(getattr(self, "_running", {}).values())


def _num_workers(config: RayConfig) -> int:
    """Return how many workers are wanted, or how many the cluster holds."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    most = sum(_fit(resources, config) for resources in nodes)
    if most < max(config.num_workers, 1):
        cpus, gpus = (sum(n.get(kind, 0) for n in nodes) for kind in ("CPU", "GPU"))
        raise ValueError(
            f"{max(config.num_workers, 1)} workers of {config.cpus_per_worker:g} CPUs and "
            f"{config.gpus_per_worker:g} GPUs each do not fit into the Ray cluster, which has "
            f"{cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} machines"
        )
    return config.num_workers or most


def _fit(resources: dict[str, float], config: RayConfig) -> int:
    wanted = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    return min(
        int(resources.get(kind, 0) / amount + 1e-9) for kind, amount in wanted.items() if amount
    )
