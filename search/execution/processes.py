"""Worker processes of this machine: CPU cores and interrupts."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence


def ignore_interrupts() -> None:
    """Ignore Ctrl-C, which a terminal sends to every process; the parent stops this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
