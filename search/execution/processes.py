"""Worker processes of this machine: CPU cores, interrupts, and exit with the parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Exit when the parent process dies; a pool's workers would otherwise block forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ignore_interrupts() -> None:
    """Ignore Ctrl-C, which a terminal sends to every process; the parent stops this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def usable_cores() -> list[int]:
    """Return the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def partition_cores(cores: Sequence[int], num_workers: int) -> list[list[int]]:
    """Return each worker's cores: equally many, or one each in turn if there are too few."""
    each = max(len(cores) // num_workers, 1)
    return [
        [cores[(worker * each + i) % len(cores)] for i in range(each)]
        for worker in range(num_workers)
    ]


def pin_to(cores: Sequence[int]) -> None:
    """Restrict this process to some cores, where the operating system supports it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
