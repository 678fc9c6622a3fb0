"""The process environment: torchrun's ranks, parents, devices, cores, threads, hidden packages.

Importing this module does not import torch, so that tools can ask for their rank first.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def global_rank() -> int:
    """Return the rank of this process among all that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return the rank of this process on this machine; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Return the number of processes that torchrun started on all machines; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Return the number of processes that torchrun started on this machine; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def num_nodes() -> int:
    """Return the number of machines that torchrun uses; 1 without torchrun."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))


@contextmanager
def process_group() -> Iterator[int]:
    """Join torchrun's process group inside the block and yield the rank of this process.

    With GPUs, each process selects one. Without torchrun, no group is created and the rank is 0.
    """
    if world_size() == 1:
        yield 0
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    # A backend for each device: what is gathered from all processes is in CPU memory.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend)
    try:
        yield torch.distributed.get_rank()
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """Return the device for a setting ``accelerator`` or ``device``.

    Args:
        name: ``auto`` (the current GPU if there is one, else the CPU), ``gpu`` (Lightning's name
            for ``cuda``), or a torch device such as ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: if torch does not recognize the name, or a GPU is requested on a machine
            without one.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if name == "gpu" else name)
    except RuntimeError:
        raise ValueError(
            f"unknown device {name!r}; choose 'auto', 'cpu', 'gpu' or 'cuda'"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {name!r} is not available: torch finds no GPU here; choose 'auto' or 'cpu'"
        )
    return device


def usable_cores() -> list[int]:
    """Return the CPU cores that this process may use; all of them where the system has no limits.

    macOS has no ``os.sched_getaffinity``.
    """
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def end_with_parent() -> None:
    """Exit when the parent process dies; the workers of a pool would otherwise block forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def limited_threads(num_threads: int) -> Iterator[None]:
    """Set torch's number of CPU threads inside the block; 0 changes nothing.

    For small tensors one thread is fastest. Waiting threads spin, so where processes share cores,
    the second thread of a small operation can make it tens of times slower.
    """
    import torch

    before = torch.get_num_threads()
    if num_threads:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def hidden_package(name: str) -> Iterator[None]:
    """Hide an optional dependency while importing another library.

    Args:
        name: package that imports inside the block do not see; one that is already imported stays
            visible.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # makes `import name` raise ImportError
    try:
        yield
    finally:
        del sys.modules[name]
