"""Keep a library from importing what this program promises not to import unasked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent_while_importing(name: str) -> Iterator[None]:
    """Make a package look as if it were not installed, unless it is imported already.

    Args:
        name: the package that imports inside the block shall not find.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say: not to be had
    try:
        yield
    finally:
        del sys.modules[name]
