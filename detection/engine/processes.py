"""Processes that torchrun started, joined for one piece of work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def joined_processes() -> Iterator[int]:
    """Join the processes that torchrun started, and part again at the end; yield the own rank.

    With GPUs each process takes one. A process that torchrun did not start has rank 0 and is alone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    # Named for both devices: what is gathered from all processes lies in the CPU's memory.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend)
    try:
        yield torch.distributed.get_rank()
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
