"""Where trials run: in this process, in worker processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import torch

from search.config import ExecutorConfig, LocalConfig, RayConfig
from search.execution.processes import (
    end_with_parent,
    leave_interrupts_to_parent,
    pin_to,
    share_cores,
    usable_cores,
)
from search.execution.worker import Evaluator, Outcome, Task

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""A task whose worker dies so often is taken to be the cause, as when memory runs out."""
STOP_SECONDS = 5.0
"""How long a worker may take to end."""


class Executor(Protocol):
    """Does tasks, several at a time. A task whose worker is lost is done again."""

    @property
    def num_slots(self) -> int:
        """How many tasks are done at the same time."""

    def submit(self, task: Task) -> None:
        """Hand a task over; at most ``num_slots`` may be under way."""

    def wait(self) -> list[Outcome]:
        """Wait until at least one task is done, and return all that are.

        Raises:
            Exception: a bug in the reward, as the worker met it.
        """

    def close(self) -> None:
        """Stop the workers, whatever they are doing."""


def run_tasks(executor: Executor, tasks: Iterable[Task]) -> Iterator[Outcome]:
    """Do tasks with all slots of an executor, and yield each outcome as it comes."""
    waiting, under_way = iter(tasks), 0
    while True:
        for task in itertools.islice(waiting, executor.num_slots - under_way):
            executor.submit(task)
            under_way += 1
        if not under_way:
            return
        outcomes = executor.wait()
        under_way -= len(outcomes)
        yield from outcomes


class InlineExecutor:
    """Does one task at a time, in this process."""

    num_slots = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def wait(self) -> list[Outcome]:
        return [self._evaluator(self._tasks.popleft())]

    def close(self) -> None:
        self._tasks.clear()


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker process may use."""

    cores: tuple[int, ...]
    gpu: str | None = None
    """As ``CUDA_VISIBLE_DEVICES`` names it; None leaves the environment alone."""


@dataclass(slots=True)
class _Worker:
    place: Place
    process: Any
    connection: Connection
    task: Task | None = None


class LocalExecutor:
    """Does tasks in worker processes of this machine, each pinned to its cores or its GPU."""

    def __init__(self, evaluator: Evaluator, places: Sequence[Place]) -> None:
        self._evaluator = evaluator
        # spawn: a fork of a process whose libraries run threads may hang
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._start(place) for place in places]
        self._attempts: dict[int, int] = {}
        self._ready: list[Outcome] = []

    @property
    def num_slots(self) -> int:
        return len(self._workers)

    def _start(self, place: Place) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._evaluator, place), daemon=True
        )
        process.start()
        theirs.close()  # so that the worker's end closes with the worker
        return _Worker(place, process, ours)

    def submit(self, task: Task) -> None:
        self._attempts[task.number] = 0
        self._give(next(i for i, w in enumerate(self._workers) if w.task is None), task)

    def _give(self, index: int, task: Task) -> None:
        worker = self._workers[index]
        worker.task = task
        self._attempts[task.number] += 1
        try:
            worker.connection.send(task)
        except OSError:  # it died idle; waiting for it tells
            logger.debug("worker process %s was gone", worker.process.pid)

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
        """Start another worker in the place of one that died, with the same task."""
        dead = self._workers[index]
        assert dead.task is not None
        dead.process.join()
        dead.connection.close()
        self._workers[index] = self._start(dead.place)
        task, code = dead.task, dead.process.exitcode
        reason = f"its worker process died ({_describe_exit(code)})"
        if self._attempts[task.number] >= MAX_ATTEMPTS:
            del self._attempts[task.number]
            failure = f"{reason} {MAX_ATTEMPTS} times"
            self._ready.append(Outcome(number=task.number, failure=failure))
            return
        logger.warning("trial %d is run again: %s", task.number, reason)
        self._give(index, task)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(STOP_SECONDS)
            worker.process.kill()
            worker.connection.close()


@dataclass(frozen=True)
class _Bug:
    """What a worker answers when a reward raised what no genotype is to blame for."""

    error: Exception
    traceback: str


def _describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    cause = "; the system may have run out of memory" if code == -9 else ""
    return f"signal {-code}{cause}"


def _serve(connection: Connection, evaluator: Evaluator, place: Place) -> None:
    """Do the tasks that come through a connection, until it closes."""
    end_with_parent()
    leave_interrupts_to_parent()
    pin_to(place.cores)
    torch.set_num_threads(len(place.cores))
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu  # read when CUDA is first used
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Outcome | _Bug = evaluator(task)
        except Exception as error:  # handed to the driver, which raises it
            answer = _Bug(_picklable(error), traceback.format_exc())
        connection.send(answer)


def _picklable(error: Exception) -> Exception:
    try:
        copy = multiprocessing.reduction.ForkingPickler.dumps(error)
        multiprocessing.reduction.ForkingPickler.loads(copy)
    except Exception:  # any class may have an odd constructor
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def local_places(config: LocalConfig) -> list[Place]:
    """Return where the workers of a local executor run.

    Raises:
        ValueError: if GPUs are asked for and there are none.
    """
    cores, num_gpus = usable_cores(), torch.cuda.device_count()
    if config.workers_per_gpu and not num_gpus:
        raise ValueError(
            f"executor.workers_per_gpu is {config.workers_per_gpu}, but torch finds no GPU here"
        )
    if config.workers_per_gpu:
        num_workers = config.num_workers or num_gpus * config.workers_per_gpu
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else [str(i) for i in range(num_gpus)]
        gpus: list[str | None] = [names[i % num_gpus] for i in range(num_workers)]
    else:
        num_workers = config.num_workers or len(cores)
        gpus = [None] * num_workers
    shares = share_cores(cores, num_workers)
    return [Place(tuple(share), gpu) for share, gpu in zip(shares, gpus, strict=True)]


@contextmanager
def running_executor(config: ExecutorConfig, evaluator: Evaluator) -> Iterator[Executor]:
    """Start an executor, and stop it in the end.

    Raises:
        ImportError: if Ray is asked for and not installed.
        ValueError: if what is asked for is not there.
    """
    executor: Executor
    match config:
        case LocalConfig():
            executor = LocalExecutor(evaluator, local_places(config))
        case RayConfig():
            from search.execution.ray import RayExecutor

            executor = RayExecutor(evaluator, config)
        case _:
            executor = InlineExecutor(evaluator)
    try:
        yield executor
    finally:
        executor.close()
