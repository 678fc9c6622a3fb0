"""Trials in worker processes of this machine, each pinned to its cores or its GPU."""

from __future__ import annotations

import logging
import multiprocessing
import os
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from backbone.config import require_at_least
from backbone.io.runtime import end_with_parent, usable_cores
from search.execution.base import MAX_ATTEMPTS, ExecutorConfig
from search.execution.processes import (
    ignore_interrupts,
    partition_cores,
    pin_to,
)
from search.execution.worker import Evaluator, Outcome, Task

logger = logging.getLogger(__name__)

STOP_SECONDS = 5.0
"""Time that a worker process gets to terminate before it is killed."""


@dataclass(kw_only=True, slots=True)
class LocalConfig(ExecutorConfig):
    """Run trials in worker processes of this machine, each pinned to its cores or to a GPU."""

    num_workers: int = 0
    """Number of worker processes; 0 for one per core, or for ``workers_per_gpu`` times the number
    of GPUs."""
    workers_per_gpu: int = 0
    """Number of workers that share a GPU, where their networks fit; 0 assigns no GPUs, so that
    every worker sees all of them."""

    def __post_init__(self) -> None:
        require_at_least(0, num_workers=self.num_workers, workers_per_gpu=self.workers_per_gpu)


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """Cores and GPU of one worker process."""

    cores: tuple[int, ...]
    gpu: str | None = None
    """Its name in ``CUDA_VISIBLE_DEVICES``; None leaves the environment unchanged."""


@dataclass(slots=True)
class _Worker:
    resources: WorkerResources
    process: Any
    connection: Connection
    task: Task | None = None


class LocalExecutor:
    """Runs tasks in worker processes of this machine, each pinned to its cores or its GPU.

    Raises:
        ValueError: if GPUs are requested and there are none.
    """

    def __init__(self, evaluator: Evaluator, config: LocalConfig) -> None:
        self._evaluator = evaluator
        # spawn: forking a process whose libraries run threads may hang
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._start(resources) for resources in allocate_resources(config)]
        self._attempts: dict[int, int] = {}
        self._ready: list[Outcome] = []

    @property
    def num_slots(self) -> int:
        return len(self._workers)

    def _start(self, resources: WorkerResources) -> _Worker:
        connection, worker_end = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(worker_end, self._evaluator, resources), daemon=True
        )
        process.start()
        worker_end.close()  # the worker holds the only copy, which closes with it
        return _Worker(resources, process, connection)

    def submit(self, task: Task) -> None:
        self._attempts[task.number] = 0
        self._send(next(i for i, w in enumerate(self._workers) if w.task is None), task)

    def _send(self, index: int, task: Task) -> None:
        worker = self._workers[index]
        worker.task = task
        self._attempts[task.number] += 1
        try:
            worker.connection.send(task)
        except OSError:  # it died while idle; ``wait`` notices and replaces it
            logger.debug("worker process %s is dead", worker.process.pid)

    def wait(self) -> list[Outcome]:
        while not self._ready:
            busy = {w.connection: i for i, w in enumerate(self._workers) if w.task is not None}
            for connection in wait(list(busy)):
                self._receive(busy[connection])  # type: ignore[index]
        ready, self._ready = self._ready, []
        return ready

    def _receive(self, index: int) -> None:
        worker = self._workers[index]
        assert worker.task is not None
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(index)
            return
        number, worker.task = worker.task.number, None
        del self._attempts[number]
        if isinstance(answer, _Bug):
            raise answer.error from RuntimeError(f"in a worker process:\n{answer.traceback}")
        self._ready.append(answer)

    def _replace(self, index: int) -> None:
        """Start a new worker instead of one that died, with the same task."""
        dead = self._workers[index]
        assert dead.task is not None
        dead.process.join()
        dead.connection.close()
        self._workers[index] = self._start(dead.resources)
        task, code = dead.task, dead.process.exitcode
        reason = f"its worker process died ({_describe_exit(code)})"
        if self._attempts[task.number] >= MAX_ATTEMPTS:
            del self._attempts[task.number]
            failure = f"{reason} {MAX_ATTEMPTS} times"
            self._ready.append(Outcome(number=task.number, failure=failure))
            return
        logger.warning("trial %d is run again: %s", task.number, reason)
        self._send(index, task)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(STOP_SECONDS)
            worker.process.kill()
            worker.connection.close()


@dataclass(frozen=True)
class _Bug:
    """A worker's answer when a reward raised an exception that is no failure of the genotype."""

    error: Exception
    traceback: str


def _describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    cause = "; the system may have run out of memory" if code == -9 else ""
    return f"signal {-code}{cause}"


def _serve(connection: Connection, evaluator: Evaluator, resources: WorkerResources) -> None:
    """Run the tasks received from a connection until it closes."""
    end_with_parent()
    ignore_interrupts()
    pin_to(resources.cores)
    import torch

    torch.set_num_threads(len(resources.cores))
    if resources.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = resources.gpu  # read when CUDA is first used
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Outcome | _Bug = evaluator(task)
        except Exception as error:  # sent to the driver, which raises it
            answer = _Bug(_picklable(error), traceback.format_exc())
        connection.send(answer)


def _picklable(error: Exception) -> Exception:
    try:
        copy = multiprocessing.reduction.ForkingPickler.dumps(error)
        multiprocessing.reduction.ForkingPickler.loads(copy)
    except Exception:  # an exception class may have any constructor
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def allocate_resources(config: LocalConfig) -> list[WorkerResources]:
    """Return the cores and the GPU of every worker of a local executor.

    Raises:
        ValueError: if GPUs are requested and there are none.
    """
    import torch

    cores, num_gpus = usable_cores(), torch.cuda.device_count()
    if config.workers_per_gpu and not num_gpus:
        raise ValueError(
            f"executor.workers_per_gpu is {config.workers_per_gpu}, but torch finds no GPU; set it "
            "to 0"
        )
    if config.workers_per_gpu:
        num_workers = config.num_workers or num_gpus * config.workers_per_gpu
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else [str(i) for i in range(num_gpus)]
        gpus: list[str | None] = [names[i % num_gpus] for i in range(num_workers)]
    else:
        num_workers = config.num_workers or len(cores)
        gpus = [None] * num_workers
    cores_by_worker = partition_cores(cores, num_workers)
    return [
        WorkerResources(tuple(own_cores), gpu)
        for own_cores, gpu in zip(cores_by_worker, gpus, strict=True)
    ]
