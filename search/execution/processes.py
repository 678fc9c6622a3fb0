"""Worker processes of this machine: each has its share of the cores and ends with its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """See that this process ends when its parent is killed; a pool's waits for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def leave_interrupts_to_parent() -> None:
    """Ignore Ctrl-C, which a terminal sends to every process; the parent ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def usable_cores() -> list[int]:
    """Return the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def share_cores(cores: Sequence[int], num_workers: int) -> list[list[int]]:
    """Return each worker's cores: equal shares, or one each, used in turn, if they are too few."""
    each = max(len(cores) // num_workers, 1)
    return [
        [cores[(worker * each + i) % len(cores)] for i in range(each)]
        for worker in range(num_workers)
    ]


def pin_to(cores: Sequence[int]) -> None:
    """Keep this process on some cores, where the system lets it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
