"""How many threads torch computes with: for small tensors one is fastest, and always predictable.

Threads that wait for one another spin; where processes share cores, the second thread of a small
operation can make it tens of times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def limited_threads(number: int) -> Iterator[None]:
    """Compute with that many threads inside the block; 0 changes nothing."""
    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
