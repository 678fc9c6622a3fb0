"""Trials on a Ray cluster. No other module imports Ray."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from backbone.config import require_at_least
from search.execution.base import MAX_ATTEMPTS, ExecutorConfig
from search.execution.worker import Evaluator, Outcome, Task

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class RayConfig(ExecutorConfig):
    """Run trials in actors on a Ray cluster."""

    address: str = ""
    """Address of the cluster, as Ray takes it (``auto``, ``ray://host:10001``); empty starts a
    cluster on this machine."""
    num_workers: int = 0
    """Number of actors; 0 for as many as fit."""
    cpus_per_worker: float = 1.0
    """CPUs that Ray reserves for each actor."""
    gpus_per_worker: float = 0.0
    """GPUs that Ray reserves for each actor; a fraction where several networks fit on one GPU."""

    def __post_init__(self) -> None:
        require_at_least(
            0,
            num_workers=self.num_workers,
            cpus_per_worker=self.cpus_per_worker,
            gpus_per_worker=self.gpus_per_worker,
        )
        if not self.cpus_per_worker and not self.gpus_per_worker:
            raise ValueError(
                "a worker needs CPUs or GPUs, but cpus_per_worker and gpus_per_worker are both 0"
            )


def _import_ray() -> Any:
    """Import Ray.

    Raises:
        ImportError: if it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    try:
        import ray
    except ImportError as missing:
        raise ImportError(
            "executor=ray needs Ray; install it by: python -m pip install -e '.[ray]'"
        ) from missing
    return ray


class _Worker:
    """An actor, which keeps the reward's data between tasks."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def run(self, task: Task) -> Outcome:
        return self._evaluator(task)


class RayExecutor:
    """Runs tasks in Ray actors, each with its own CPUs and (fractions of) GPUs.

    Uses the cluster that this process is connected to; otherwise connects to the one at
    ``config.address``; otherwise starts one on this machine, which stops with the executor.

    Raises:
        ConnectionError: if no cluster answers at the address.
        ImportError: if Ray is not installed.
        ValueError: if the cluster lacks the resources for the workers.
    """

    def __init__(self, evaluator: Evaluator, config: RayConfig) -> None:
        self._ray = ray = _import_ray()
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            ray.init(
                address=config.address or None, log_to_driver=False, logging_level=logging.ERROR
            )
        try:
            self.num_slots = _num_workers(ray.nodes(), config)
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
            done, _ = self._ray.wait(list(self._running), num_returns=1)
            for answer in done:
                outcome = self._collect(answer)
                if outcome is not None:
                    outcomes.append(outcome)
        return outcomes

    def _collect(self, answer: Any) -> Outcome | None:
        """Return the outcome of a task, or None if it was started again."""
        from ray.exceptions import RayActorError

        actor, task, attempt = self._running.pop(answer)
        try:
            outcome: Outcome = self._ray.get(answer)
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
            self._ray.kill(actor)
        if self._connected_here:
            self._ray.shutdown()

    def _busy(self) -> list[tuple[Any, Task, int]]:
        return list(getattr(self, "_running", {}).values())


def _num_workers(nodes: list[dict[str, Any]], config: RayConfig) -> int:
    """Return the configured number of workers, or as many as fit into the cluster's nodes."""
    resources_by_node = [node["Resources"] for node in nodes if node["Alive"]]
    capacity = sum(_fit(resources, config) for resources in resources_by_node)
    if capacity < max(config.num_workers, 1):
        cpus, gpus = (sum(n.get(kind, 0) for n in resources_by_node) for kind in ("CPU", "GPU"))
        raise ValueError(
            f"{max(config.num_workers, 1)} workers of {config.cpus_per_worker:g} CPUs and "
            f"{config.gpus_per_worker:g} GPUs each do not fit into the Ray cluster, which has "
            f"{cpus:g} CPUs and {gpus:g} GPUs on {len(resources_by_node)} machines"
        )
    return config.num_workers or capacity


def _fit(resources: dict[str, float], config: RayConfig) -> int:
    """Return the number of workers that fit into one node."""
    needed = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    return min(
        int(resources.get(kind, 0) / amount + 1e-9) for kind, amount in needed.items() if amount
    )
